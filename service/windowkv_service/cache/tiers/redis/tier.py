"""The Redis tier: one key per frame, every key with a life, every operation with a deadline.

A lost server is answered with misses at once (breaker.py) and found again within a second. What lives in
Redis:

    windowkv:1:{address, hex}           a packed frame, written with SET ... PX
    windowkv:1:list:{list key, hex}     sorted set of manifest addresses, scored by when they expire
    (milliseconds)

Keys carry no hash tags: in a cluster they spread over the slots. A user restricted by ACL needs +@read
+@write +eval +ping +info on windowkv:*.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from windowkv_service.cache.events import CacheEvents, Departure, Lookup, NoEvents, RedisOp
from windowkv_service.cache.frame import Frame, FrameCorrupt, FrameKind, pack, unpack
from windowkv_service.cache.tiers.base import MAX_FRAME_BYTES, Found, Miss
from windowkv_service.cache.tiers.redis.breaker import Breaker
from windowkv_service.cache.tiers.redis.resp import Command, ErrorReply, Reply
from windowkv_service.cache.tiers.redis.servers import LOST, KeyedCommand, Lost, RedisServers
from windowkv_service.domain.keys import Address
from windowkv_service.domain.results import MissReason, Tier, TierHealth, TierStatus

KEY_PREFIX = b"windowkv:1:"
VALUES_UNDER_WAY = 4  # of about 1 MiB each: more does not go faster and holds up everybody else's commands
SMALL_UNDER_WAY = 256
MAX_LISTED = 1000
_MAX_TTL_MS = 10 * 365 * 86400 * 1000
_DOWN_CODES = frozenset({"LOADING", "NOAUTH", "WRONGPASS", "CLUSTERDOWN", "MASTERDOWN"})
_KNOWN_CODES = _DOWN_CODES | {"OOM", "READONLY", "MISCONF", "MOVED", "ASK", "BUSY", "NOPERM", "ERR"}

# Atomic, so that two workers extending the same key never shorten its life (PEXPIRE GT needs Redis 7).
# Answers the value's length and remaining life, or nil where there is none.
_GROW = b"""
local left = redis.call('PTTL', KEYS[1])
if left == -2 then return false end
if left < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {redis.call('STRLEN', KEYS[1]), left}
"""
_ENLIST = b"""
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('PEXPIREAT', KEYS[1], redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])
return 1
"""


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
        """callback is called, from the pinging thread, whenever the servers are found again."""
        self._came_up = callback

    @property
    def is_up(self) -> bool:
        return not self._breaker.is_open

    def put(self, frames: Sequence[Frame], ttl_s: float) -> list[bool]:
        if ttl_s <= 0 or not self.is_up or any(frame.size_bytes > MAX_FRAME_BYTES for frame in frames):
            return [False] * len(frames)
        kept: list[bool] = []
        for start in range(0, len(frames), SMALL_UNDER_WAY):
            kept += self._put(frames[start : start + SMALL_UNDER_WAY], _milliseconds(ttl_s))
        return kept

    def get(
        self, addresses: Sequence[Address], kind: FrameKind, *, budget_s: float | None = None
    ) -> list[Found]:
        """What does not arrive within budget_s (load_budget_s where None) is Miss(TIER_DOWN)."""
        deadline = time.monotonic() + (self._load_budget_s if budget_s is None else budget_s)
        commands = [KeyedCommand(_key(address), [b"GET", _key(address)]) for address in addresses]
        replies = self._run(RedisOp.READ, commands, deadline, VALUES_UNDER_WAY)
        found = [
            self._verified(reply, address, kind) for reply, address in zip(replies, addresses, strict=True)
        ]
        corrupt = [
            address for address, one in zip(addresses, found, strict=True) if one == Miss(MissReason.CORRUPT)
        ]
        if corrupt:
            self.drop(corrupt)
        for outcome, reason in ((Lookup.MISS, MissReason.NOT_CACHED), (Lookup.ERROR, MissReason.TIER_DOWN)):
            self._events.looked_up(self.tier, outcome, found.count(Miss(reason)))
        self._events.looked_up(self.tier, Lookup.HIT, sum(isinstance(one, Frame) for one in found))
        return found

    def has(self, addresses: Sequence[Address]) -> list[bool]:
        return [
            reply == 1
            for reply in self._small(RedisOp.READ, [[b"EXISTS", _key(address)] for address in addresses])
        ]

    def extend(self, addresses: Sequence[Address], ttl_s: float) -> None:
        if ttl_s > 0:
            self._small(RedisOp.EXPIRE, [_grow(address, _milliseconds(ttl_s)) for address in addresses])

    def drop(self, addresses: Sequence[Address]) -> bool:
        replies = self._small(RedisOp.DELETE, [[b"UNLINK", _key(address)] for address in addresses])
        self._events.evicted(self.tier, Departure.DELETE, replies.count(1))
        return all(isinstance(reply, int) for reply in replies)

    def put_manifest(self, list_key: bytes, frame: Frame, ttl_s: float) -> bool:
        """Make an entry readable and listed; the last step of publishing it."""
        if not self.put([frame], ttl_s)[0]:
            return False
        now_ms = int(self._wall() * 1000)
        numbers = [b"%d" % (now_ms + _milliseconds(ttl_s)), b"%d" % now_ms]
        enlisted = self._small(
            RedisOp.WRITE, [[b"EVAL", _ENLIST, b"1", _list_key(list_key), frame.address, *numbers]]
        )
        return enlisted == [1]

    def list_manifests(self, list_key: bytes) -> list[Frame]:
        """At most MAX_LISTED manifests that were put under list_key, those that expire last first; [] when
        down."""
        now_ms = b"(%d" % int(self._wall() * 1000)
        limit = [b"LIMIT", b"0", b"%d" % MAX_LISTED]
        command = [b"ZREVRANGEBYSCORE", _list_key(list_key), b"+inf", now_ms, *limit]
        (listed,) = self._small(RedisOp.READ, [command])
        if not isinstance(listed, list):
            return []
        addresses = [bytes(one) for one in listed if isinstance(one, bytes | bytearray) and len(one) == 32]
        return [one for one in self.get(addresses, FrameKind.MANIFEST) if isinstance(one, Frame)]

    def drop_manifest(self, list_key: bytes, address: Address) -> bool:
        """Make an entry unreadable; the first step of dropping it."""
        forget: list[Command] = [[b"UNLINK", _key(address)], [b"ZREM", _list_key(list_key), address]]
        return all(isinstance(reply, int) for reply in self._small(RedisOp.DELETE, forget))

    def status(self) -> TierStatus:
        used, allowed = self._memory
        return TierStatus(self.tier, TierHealth.UP if self.is_up else TierHealth.DOWN, allowed, used)

    def close(self) -> None:
        self._breaker.close()
        self._servers.close()

    def _put(self, frames: Sequence[Frame], ttl_ms: int) -> list[bool]:
        """Extend what is there, send what is not."""
        there = self._small(
            RedisOp.WRITE, [_grow(frame.address, ttl_ms) for frame in frames if frame.kind.is_immutable]
        )
        answers = iter(there)
        kept = [False] * len(frames)
        missing: list[int] = []
        sending: list[Command] = []
        for index, frame in enumerate(frames):
            size, left_ms = _grown(next(answers)) if frame.kind.is_immutable else (0, 0)
            kept[index] = size == frame.size_bytes
            if not kept[index]:
                missing.append(index)
                sending.append(_set(frame, max(ttl_ms, left_ms), is_new=size is None))
        replies = self._values(RedisOp.WRITE, sending)
        for index, reply in zip(missing, replies, strict=True):
            kept[index] = reply == b"OK" or reply is None  # None: somebody else has put it since
        raced = [
            frames[index].address for index, reply in zip(missing, replies, strict=True) if reply is None
        ]
        if raced:
            self._small(RedisOp.WRITE, [_grow(address, ttl_ms) for address in raced])
        return kept

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

    def _values(self, op: RedisOp, commands: Sequence[Command]) -> list[Reply | Lost]:
        """Each batch of values has a deadline of its own: a long document may take long, a stuck server may
        not."""
        replies: list[Reply | Lost] = []
        for start in range(0, len(commands), VALUES_UNDER_WAY):
            batch = [KeyedCommand(_key_of(one), one) for one in commands[start : start + VALUES_UNDER_WAY]]
            replies += self._run(op, batch, time.monotonic() + self._write_budget_s, VALUES_UNDER_WAY)
        return replies

    def _small(self, op: RedisOp, commands: Sequence[Command]) -> list[Reply | Lost]:
        keyed = [KeyedCommand(_key_of(command), command) for command in commands]
        return self._run(op, keyed, time.monotonic() + self._load_budget_s, SMALL_UNDER_WAY)

    def _run(
        self, op: RedisOp, commands: Sequence[KeyedCommand], deadline: float, window: int
    ) -> list[Reply | Lost]:
        if not commands or self._breaker.is_open:
            return [LOST] * len(commands)
        started = time.monotonic()
        replies, trouble = self._servers.run(commands, deadline, window)
        self._events.redis_timed(op, time.monotonic() - started)
        if trouble is not None:
            self._events.redis_failed(op, trouble.reason)
            (self._breaker.trip if trouble.is_down else self._breaker.suspect)()
        for code in {reply.code for reply in replies if isinstance(reply, ErrorReply)}:
            self._events.redis_failed(op, code.lower() if code in _KNOWN_CODES else "other")
            if code in _DOWN_CODES:
                self._breaker.trip()
        return replies

    def _changed(self, is_open: bool) -> None:
        self._events.breaker_changed(is_open)
        if not is_open:
            self._came_up()

    def _ping(self) -> bool:
        is_up, used, allowed = self._servers.ping(self._connect_timeout_s)
        if is_up:
            self._memory = (used, allowed)
        return is_up


def _key(address: Address) -> bytes:
    return KEY_PREFIX + address.hex().encode()


def _list_key(list_key: bytes) -> bytes:
    return KEY_PREFIX + b"list:" + list_key.hex().encode()


def _key_of(command: Command) -> bytes:
    key = command[3] if command[0] == b"EVAL" else command[1]
    assert isinstance(key, bytes)
    return key


def _grow(address: Address, ttl_ms: int) -> Command:
    return [b"EVAL", _GROW, b"1", _key(address), b"%d" % ttl_ms]


def _grown(reply: Reply | Lost) -> tuple[int | None, int]:
    """(stored bytes, remaining life) of an answer to _grow; (None, 0) where nothing is there; (0, 0) if
    unknown."""
    if (
        isinstance(reply, list)
        and len(reply) == 2
        and isinstance(reply[0], int)
        and isinstance(reply[1], int)
    ):
        return reply[0], reply[1]
    return (None, 0) if reply is None else (0, 0)


def _set(frame: Frame, ttl_ms: int, is_new: bool) -> Command:
    """is_new: leave alone what somebody else may have put meanwhile, perhaps for longer."""
    command: Command = [b"SET", _key(frame.address), pack(frame), b"PX", b"%d" % ttl_ms]
    return [*command, b"NX"] if is_new else command


def _milliseconds(ttl_s: float) -> int:
    return max(1, int(min(ttl_s * 1000, _MAX_TTL_MS)))
