"""Content addresses: how prompts, blocks and caches are named.

A block's address is an HMAC-SHA-256 under the tenant's secret over everything that determines its bytes: the
namespace, the chained digest of all tokens up to and including its window, its layer group, and the codec unless that
is the exact one. Full width, never truncated, and only ever computed here, by the server.
"""

from __future__ import annotations

import hashlib
import hmac
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from windowkv_service.domain.codec import Codec
from windowkv_service.domain.requests import Compression

Address = bytes  # 32 bytes
TOKEN_ARRAY = "I"  # unsigned 32 bit, little endian on every machine we run on


def token_bytes(token_ids: Sequence[int]) -> bytes:
    """The tokens as 32-bit integers; what every digest is taken over."""
    return array(TOKEN_ARRAY, token_ids).tobytes()


def chain_digests(token_ids: Sequence[int], window_size: int) -> list[bytes]:
    """One SHA-256 per window, each over the digest before it and the window's tokens; the last may be ragged."""
    digests, parent = [], b""
    for start in range(0, len(token_ids), window_size):
        parent = hashlib.sha256(parent + token_bytes(token_ids[start : start + window_size])).digest()
        digests.append(parent)
    return digests


@dataclass(frozen=True)
class Namespace:
    """Everything but the tokens that determines a block's bytes, and whose they are.

    digest: of the model's weights and config, dtype, RoPE parameters and layout version.
    secret: the tenant's; two tenants share nothing, not even by guessing.
    """

    digest: bytes
    secret: bytes

    def block(self, chain_digest: bytes, group: int, codec: Codec = Codec.EXACT) -> Address:
        return self._address(b"block", chain_digest, group.to_bytes(4, "little"), *_tags(codec))

    def strips(
        self, chain_digest: bytes, choice_digest: bytes, group: int, number: int, codec: Codec = Codec.EXACT
    ) -> Address:
        """The number-th block of the tokens that a group keeps of a whole prompt; choice_digest says which they are."""
        place = group.to_bytes(4, "little") + number.to_bytes(4, "little")
        return self._address(b"strips", chain_digest, choice_digest, place, *_tags(codec))

    def index(self, chain_digest: bytes, profile_digest: bytes, leader: int, piece: int) -> Address:
        """Leader keys of a whole prompt, cut into pieces; profile_digest says which leaders and which codec."""
        number = leader.to_bytes(4, "little") + piece.to_bytes(4, "little")
        return self._address(b"index", chain_digest, profile_digest, number)

    def manifest(self, cache_id: str) -> Address:
        return self._address(b"manifest", cache_id.encode())

    def alias(self, alias: str) -> Address:
        return self._address(b"alias", alias.encode())

    def listing(self) -> Address:
        """Where the tenant's manifests of this model are listed."""
        return self._address(b"listing")

    def cache_id(self, token_ids: Sequence[int], compression: Compression) -> str:
        """The same prompt compressed the same way has the same name on every worker; 40 lower-case hex digits.

        160 bits of an HMAC: long enough never to collide, short enough to read out.
        """
        how = f"{compression.method}|{compression.kept_ratio!r}|{compression.task.value}|{compression.retention.value}"
        if compression.min_fidelity is not None:
            how += f"|{compression.min_fidelity!r}"
        if not compression.codec.is_exact:
            how += f"|{compression.codec.value}"
        return self._address(b"cache", how.encode(), hashlib.sha256(token_bytes(token_ids)).digest()).hex()[
            :40
        ]

    def _address(self, kind: bytes, *parts: bytes) -> Address:
        message = self.digest + b"".join(len(part).to_bytes(4, "little") + part for part in (kind, *parts))
        return hmac.new(self.secret, message, hashlib.sha256).digest()


def _tags(codec: Codec) -> tuple[bytes, ...]:
    """Nothing for what is exact: it is found where it was before there were codecs."""
    return (codec.tag,) if codec.tag else ()
