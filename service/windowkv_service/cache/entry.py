"""Entry: the store's record of one cached prompt."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

from windowkv_service.domain.kept_tokens import KeptTokens, digest_of
from windowkv_service.domain.keys import TOKEN_ARRAY, Address, Namespace, chain_digests
from windowkv_service.domain.requests import Compression, Durability
from windowkv_service.domain.results import Tier

Arena: TypeAlias = int  # names one BlockPool: the number of layers in its blocks
PlacedBlock: TypeAlias = tuple[Arena, int]  # (arena, block_id)
Windows: TypeAlias = tuple[tuple[int, ...], ...]  # [group], ascending window indices


@dataclass(eq=False)
class Entry:
    """Changed by the store and by the worker that owns it, nobody else.

    windows: those the compressed cache consists of; of a group in tokens, which keeps single tokens, the numbers of
    its blocks of strips. retained: the windows that are kept in some tier: with RETENTION_FULL all that the layers
    can see, else windows. resident: those on the device while nobody asks; windows, or less where questions choose
    their own. Times are seconds since the epoch, sizes bytes.
    """

    cache_id: str
    tenant: str
    token_ids: array[int]  # any sequence of integers may be given; kept as an array of TOKEN_ARRAY
    compression: Compression
    window_size: int
    windows: Windows
    create_time: float
    expire_time: float
    retained: Windows = ()
    resident: Windows = ()
    tokens: KeptTokens = field(default_factory=dict)
    is_named: bool = True  # False: a prompt without a name; found by its content, never listed
    update_time: float = 0.0
    last_used_time: float = 0.0
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    alias: str = ""
    alias_time: float = 0.0  # when the alias was given or taken away; 0: a manifest said so, at some time
    pinned: bool = False
    durability: Durability = Durability.DEVICE
    hit_count: int = 0
    fidelity: float = 1.0
    full_bytes: int = 0  # of the uncompressed cache
    stored_bytes: int = 0  # on the device when it is resident there, index included
    index_bytes: int = 0  # the part of stored_bytes that is leader keys
    profile_digest: bytes = b""  # which leaders the index is of, and its codec; empty without an index
    index_pieces: tuple[tuple[int, int], ...] = ()  # (leader, number of pieces it is stored in)

    # Where its bytes are. locate() fills in the addresses.
    manifest_address: Address = b""
    block_addresses: tuple[
        Mapping[int, Address], ...
    ] = ()  # [group]: window → address, for every retained window
    strip_addresses: tuple[Address, ...] = ()  # of the groups' blocks of strips
    index_addresses: tuple[Address, ...] = ()
    blocks: tuple[tuple[PlacedBlock, ...], ...] | None = (
        None  # [group], aligned with resident; None: not on the device
    )
    index: object | None = None  # what scores a question's windows on the device
    on_host: bool = False
    on_redis: bool = False
    pins: int = 0  # how many sequences use it now
    longest_expire_time: float = 0.0  # the latest it ever had: until then its bytes stay below

    def __post_init__(self) -> None:
        self.token_ids = array(TOKEN_ARRAY, self.token_ids)
        self.retained = self.retained or self.windows
        self.resident = self.resident or self.windows
        self.update_time = self.update_time or self.create_time
        self.last_used_time = self.last_used_time or self.create_time
        self.longest_expire_time = self.longest_expire_time or self.expire_time

    @property
    def name(self) -> str:
        return f"caches/{self.cache_id}"

    @property
    def token_count(self) -> int:
        return len(self.token_ids)

    @property
    def is_resident(self) -> bool:
        return self.blocks is not None

    @property
    def is_in_use(self) -> bool:
        return self.pins > 0

    @property
    def tier_below(self) -> Tier | None:
        """The nearest tier under the device that holds it."""
        if self.on_host:
            return Tier.HOST
        return Tier.REDIS if self.on_redis else None

    @property
    def placed_blocks(self) -> Iterator[PlacedBlock]:
        return chain.from_iterable(self.blocks or ())

    @property
    def addresses(self) -> list[Address]:
        """Of every block and index piece, in any tier."""
        windows = chain.from_iterable(row.values() for row in self.block_addresses)
        return [*windows, *self.strip_addresses, *self.index_addresses]

    def locate(self, namespace: Namespace, digests: Sequence[bytes] | None = None) -> None:
        """Compute the addresses; digests are the prompt's chain digests where they are at hand."""
        digests = digests or chain_digests(self.token_ids, self.window_size)
        codec = self.compression.codec
        self.manifest_address = namespace.manifest(self.cache_id)
        self.block_addresses = tuple(
            {window: namespace.block(digests[window], group, codec) for window in row}
            for group, row in enumerate(self.retained)
        )
        choice = digest_of(self.tokens, self.compression.method)
        self.strip_addresses = tuple(
            namespace.strips(digests[-1], choice, group, number, codec)
            for group in sorted(self.tokens)
            for number in self.windows[group]
        )
        self.index_addresses = tuple(
            namespace.index(digests[-1], self.profile_digest, leader, piece)
            for leader, num_pieces in self.index_pieces
            for piece in range(num_pieces)
        )
