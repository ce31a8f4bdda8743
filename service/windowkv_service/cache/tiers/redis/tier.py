"""The Redis tier: one key per frame, every key with a life, every operation with a deadline.

A lost server is answered with misses at once (breaker.py) and found again within a second. A user restricted
by ACL needs +@read +@write +eval +ping +info on windowkv:*.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence

from windowkv_service.cache.events import CacheEvents, Departure, Lookup, NoEvents, RedisOp
from windowkv_service.cache.frame import Frame, FrameCorrupt, FrameKind, unpack
from windowkv_service.cache.tiers.base import MAX_FRAME_BYTES, Found, Miss
from windowkv_service.cache.tiers.redis import commands
from windowkv_service.cache.tiers.redis.breaker import Breaker
from windowkv_service.cache.tiers.redis.commands import KEY_PREFIX
from windowkv_service.cache.tiers.redis.resp import Command, ErrorReply, Reply
from windowkv_service.cache.tiers.redis.servers import LOST, KeyedCommand, Lost, RedisServers
from windowkv_service.domain.keys import Address
from windowkv_service.domain.results import MissReason, Tier, TierHealth, TierStatus

__all__ = ["KEY_PREFIX", "RedisTier"]

VALUES_UNDER_WAY = 4  # of about 1 MiB each: more does not go faster and holds up everybody else's commands
SMALL_UNDER_WAY = 256
SMALL_AT_ONCE = 2048  # commands without values that share one deadline
LISTED_AT_ONCE = 1000
MANIFESTS_AT_ONCE = 128  # that share one deadline: each holds its prompt's tokens
ADDRESS_BYTES = 32
_DOWN_CODES = frozenset({"LOADING", "NOAUTH", "WRONGPASS", "CLUSTERDOWN", "MASTERDOWN"})
_KNOWN_CODES = _DOWN_CODES | {"OOM", "READONLY", "MISCONF", "MOVED", "ASK", "BUSY", "NOPERM", "ERR"}


class RedisTier:
    """load_budget_s bounds every read, write_budget_s every batch of writes. wall gives seconds since the
    epoch."""

    tier = Tier.REDIS

    def __init__(
        self,
        url: str,
        *,
        load_budget_s: float = 1.0,
        write_budget_s: float = 2.0,
        connect_timeout_s: float = 0.5,
        events: CacheEvents | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """ValueError when the URL is none; a server that cannot be reached is no error."""
        self._load_budget_s = load_budget_s
        self._write_budget_s = write_budget_s
        self._connect_timeout_s = connect_timeout_s
        self._events = events or NoEvents()
        self._wall = wall
        self._memory = (0, 0)
        self._came_up: Callable[[], None] = lambda: None
        self._servers = RedisServers(
            url, connect_timeout_s=connect_timeout_s, max_value_bytes=MAX_FRAME_BYTES
        )
        self._breaker = Breaker(self._ping, self._changed, "windowkv-redis-ping")
        self._breaker.start(wait_s=2 * connect_timeout_s)

    def when_up(self, callback: Callable[[], None]) -> None:
        """callback is called, from the pinging thread, when the servers are found again and at every ping that
        they answer: a stall may end without anybody having called it an outage."""
        self._came_up = callback

    @property
    def is_up(self) -> bool:
        return not self._breaker.is_open

    def put(self, frames: Sequence[Frame], ttl_s: float) -> list[bool]:
        if ttl_s <= 0 or not self.is_up or any(frame.size_bytes > MAX_FRAME_BYTES for frame in frames):
            return [False] * len(frames)
        kept: list[bool] = []
        for start in range(0, len(frames), SMALL_UNDER_WAY):
            kept += self._put(frames[start : start + SMALL_UNDER_WAY], commands.milliseconds(ttl_s))
        return kept

    def get(
        self, addresses: Sequence[Address], kind: FrameKind, *, budget_s: float | None = None
    ) -> list[Found]:
        """What does not arrive within budget_s (load_budget_s where None) is Miss(TIER_DOWN)."""
        deadline = time.monotonic() + (self._load_budget_s if budget_s is None else budget_s)
        asked = [KeyedCommand(commands.key_of(one), one) for one in map(commands.get, addresses)]
        replies = self._run(RedisOp.READ, asked, deadline, VALUES_UNDER_WAY)
        found = [self._verified(*one, kind) for one in zip(replies, addresses, strict=True)]
        corrupt = [at for at, one in zip(addresses, found, strict=True) if one == Miss(MissReason.CORRUPT)]
        if corrupt:
            self.drop(corrupt)
        for outcome, reason in ((Lookup.MISS, MissReason.NOT_CACHED), (Lookup.ERROR, MissReason.TIER_DOWN)):
            self._events.looked_up(self.tier, outcome, found.count(Miss(reason)))
        self._events.looked_up(self.tier, Lookup.HIT, sum(isinstance(one, Frame) for one in found))
        return found

    def has(self, addresses: Sequence[Address]) -> list[bool]:
        return [reply == 1 for reply in self._small(RedisOp.READ, [*map(commands.exists, addresses)])]

    def extend(self, addresses: Sequence[Address], ttl_s: float) -> None:
        if ttl_s > 0:
            self._grow(RedisOp.EXPIRE, addresses, commands.milliseconds(ttl_s))

    def drop(self, addresses: Sequence[Address]) -> bool:
        replies = self._small(RedisOp.DELETE, [*map(commands.unlink, addresses)])
        self._events.evicted(self.tier, Departure.DELETE, replies.count(1))
        return all(isinstance(reply, int) for reply in replies)

    def put_manifest(self, list_key: bytes, frame: Frame, ttl_s: float) -> bool:
        """Make an entry readable and listed; the last step of publishing it."""
        if not self.put([frame], ttl_s)[0]:
            return False
        enlist = commands.enlist(list_key, frame.address, self._now_ms(), commands.milliseconds(ttl_s))
        return self._small(RedisOp.WRITE, [enlist]) == [1]

    def list_manifests(self, list_key: bytes, known: Container[Address] = ()) -> list[Frame] | None:
        """The manifests that were put under list_key, but those at known addresses, those that expire last first; None
        when down."""
        listed = self._listed(list_key)
        if listed is None:
            return None
        unknown = [address for address in listed if address not in known]
        found: list[Found] = []
        for start in range(0, len(unknown), MANIFESTS_AT_ONCE):
            found += self.get(unknown[start : start + MANIFESTS_AT_ONCE], FrameKind.MANIFEST)
        if Miss(MissReason.TIER_DOWN) in found:
            return None
        return [one for one in found if isinstance(one, Frame)]

    def drop_manifest(self, list_key: bytes, address: Address) -> bool:
        """Make an entry unreadable; the first step of dropping it."""
        forget = [commands.unlink(address), commands.unlist(list_key, address)]
        return all(isinstance(reply, int) for reply in self._small(RedisOp.DELETE, forget))

    def status(self) -> TierStatus:
        used, allowed = self._memory
        return TierStatus(self.tier, TierHealth.UP if self.is_up else TierHealth.DOWN, allowed, used)

    def close(self) -> None:
        self._breaker.close()
        self._servers.close()

    def _listed(self, list_key: bytes) -> list[Address] | None:
        """Every address in the list, once, however long it is; None when down. What comes and goes meanwhile may or
        may not be in it."""
        now_ms, addresses = self._now_ms(), dict[Address, None]()
        is_whole = False
        while not is_whole:
            page = commands.listed(list_key, now_ms, len(addresses), LISTED_AT_ONCE)
            (listed,) = self._small(RedisOp.READ, [page])
            if not isinstance(listed, list):
                return None
            strings = [bytes(one) for one in listed if isinstance(one, bytes | bytearray)]
            is_whole = addresses.keys() >= set(strings) or len(strings) < LISTED_AT_ONCE
            addresses |= dict.fromkeys(strings)
        return [address for address in addresses if len(address) == ADDRESS_BYTES]

    def _put(self, frames: Sequence[Frame], ttl_ms: int) -> list[bool]:
        """Extend what is there, send what is not."""
        immutable = [frame.address for frame in frames if frame.kind.is_immutable]
        there = dict(zip(immutable, self._grow(RedisOp.WRITE, immutable, ttl_ms), strict=True))
        sending: dict[Address, Command] = {}
        for frame in frames:
            size, left_ms = commands.grown(there.get(frame.address, LOST))
            if size != frame.size_bytes:
                sending[frame.address] = commands.set_frame(frame, max(ttl_ms, left_ms), is_new=size is None)
        sent = dict(zip(sending, self._values(RedisOp.WRITE, [*sending.values()]), strict=True))
        raced = [address for address, reply in sent.items() if reply is None]  # somebody else was quicker
        self._grow(RedisOp.WRITE, raced, ttl_ms)
        return [sent.get(frame.address, b"OK") in (b"OK", None) for frame in frames]

    def _grow(self, op: RedisOp, addresses: Sequence[Address], ttl_ms: int) -> list[Reply | Lost]:
        return self._small(op, [commands.grow(address, ttl_ms) for address in addresses])

    def _verified(self, reply: Reply | Lost, address: Address, kind: FrameKind) -> Found:
        if reply is None:
            return Miss(MissReason.NOT_CACHED)
        if isinstance(reply, ErrorReply) and reply.code in ("TOOLONG", "WRONGTYPE"):
            return self._corrupt("no frame at all")
        if not isinstance(reply, bytearray):
            return Miss(MissReason.TIER_DOWN)
        try:
            return unpack(reply, address=address, kind=kind, max_bytes=MAX_FRAME_BYTES)
        except FrameCorrupt as corrupt:
            return self._corrupt(corrupt.reason)

    def _corrupt(self, reason: str) -> Miss:
        self._events.checksum_failed(self.tier, reason)
        self._events.looked_up(self.tier, Lookup.CORRUPT, 1)
        return Miss(MissReason.CORRUPT)

    def _values(self, op: RedisOp, asked: Sequence[Command]) -> list[Reply | Lost]:
        return self._batched(op, asked, VALUES_UNDER_WAY, VALUES_UNDER_WAY, self._write_budget_s)

    def _small(self, op: RedisOp, asked: Sequence[Command]) -> list[Reply | Lost]:
        return self._batched(op, asked, SMALL_AT_ONCE, SMALL_UNDER_WAY, self._load_budget_s)

    def _batched(
        self, op: RedisOp, asked: Sequence[Command], size: int, window: int, budget_s: float
    ) -> list[Reply | Lost]:
        """Each batch has a deadline of its own: a long document may take long, a stuck server may not."""
        replies: list[Reply | Lost] = []
        for start in range(0, len(asked), size):
            batch = [KeyedCommand(commands.key_of(one), one) for one in asked[start : start + size]]
            replies += self._run(op, batch, time.monotonic() + budget_s, window)
        return replies

    def _run(
        self, op: RedisOp, asked: Sequence[KeyedCommand], deadline: float, window: int
    ) -> list[Reply | Lost]:
        if not asked or self._breaker.is_open:
            return [LOST] * len(asked)
        started = time.monotonic()
        replies, trouble = self._servers.run(asked, deadline, window)
        self._events.redis_timed(op, time.monotonic() - started)
        if trouble is not None:
            self._events.redis_failed(op, trouble.reason)
            (self._breaker.trip if trouble.is_down else self._breaker.suspect)()
        for code in {reply.code for reply in replies if isinstance(reply, ErrorReply)}:
            self._events.redis_failed(op, code.lower() if code in _KNOWN_CODES else "other")
            if code in _DOWN_CODES:
                self._breaker.trip()
        return replies

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)

    def _changed(self, is_open: bool) -> None:
        self._events.breaker_changed(is_open)
        if not is_open:
            self._came_up()

    def _ping(self) -> bool:
        is_up, used, allowed = self._servers.ping(self._connect_timeout_s)
        if is_up:
            self._memory = (used, allowed)
            if self.is_up:
                self._came_up()
        return is_up
