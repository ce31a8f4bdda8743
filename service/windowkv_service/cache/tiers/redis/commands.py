"""What is said to Redis about frames, and what the answers mean.

    windowkv:1:{address, hex}        a packed frame
    windowkv:1:list:{key, hex}       sorted set of manifest addresses, scored by when they expire, in ms since
    the epoch

Keys carry no hash tags: in a cluster they spread over the slots.
"""

from __future__ import annotations

from windowkv_service.cache.frame import Frame, pack
from windowkv_service.cache.tiers.redis.resp import Command, Reply
from windowkv_service.cache.tiers.redis.servers import Lost
from windowkv_service.domain.keys import Address

KEY_PREFIX = b"windowkv:1:"
_MAX_TTL_MS = 10 * 365 * 86400 * 1000

# Atomic, so that two workers extending the same key never shorten its life (PEXPIRE GT needs Redis 7).
# Answers the value's length and the life it had, or nil where there is none.
_GROW = b"""
local left = redis.call('PTTL', KEYS[1])
if left == -2 then return false end
if left < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {redis.call('STRLEN', KEYS[1]), left}
"""
# The list lives as long as the last that it lists.
_ENLIST = b"""
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('PEXPIREAT', KEYS[1], redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])
return 1
"""


def milliseconds(ttl_s: float) -> int:
    return max(1, int(min(ttl_s * 1000, _MAX_TTL_MS)))


def key_of(command: Command) -> bytes:
    """The one key that a command is about."""
    key = command[3] if command[0] == b"EVAL" else command[1]
    assert isinstance(key, bytes)
    return key


def get(address: Address) -> Command:
    return [b"GET", _key(address)]


def exists(address: Address) -> Command:
    return [b"EXISTS", _key(address)]


def unlink(address: Address) -> Command:
    return [b"UNLINK", _key(address)]


def set_frame(frame: Frame, ttl_ms: int, is_new: bool) -> Command:
    """is_new: leave alone what somebody else may have put meanwhile, perhaps for longer; the answer is nil
    then."""
    command: Command = [b"SET", _key(frame.address), pack(frame), b"PX", b"%d" % ttl_ms]
    return [*command, b"NX"] if is_new else command


def grow(address: Address, ttl_ms: int) -> Command:
    """Let it live for ttl_ms at least."""
    return [b"EVAL", _GROW, b"1", _key(address), b"%d" % ttl_ms]


def grown(reply: Reply | Lost) -> tuple[int | None, int]:
    """(stored bytes, life it had) of an answer to grow; (None, 0) where nothing is there, (0, 0) if
    unknown."""
    match reply:
        case [int(size), int(left_ms)]:
            return size, left_ms
        case None:
            return None, 0
        case _:
            return 0, 0


def enlist(list_key: bytes, manifest: Address, now_ms: int, ttl_ms: int) -> Command:
    return [b"EVAL", _ENLIST, b"1", _list(list_key), manifest, b"%d" % (now_ms + ttl_ms), b"%d" % now_ms]


def unlist(list_key: bytes, manifest: Address) -> Command:
    return [b"ZREM", _list(list_key), manifest]


def listed(list_key: bytes, now_ms: int, first: int, limit: int) -> Command:
    """Those that live at now_ms, the longest life first; limit of them, from the first-th on."""
    bounds = [b"+inf", b"(%d" % now_ms, b"LIMIT", b"%d" % first, b"%d" % limit]
    return [b"ZREVRANGEBYSCORE", _list(list_key), *bounds]


def _key(address: Address) -> bytes:
    return KEY_PREFIX + address.hex().encode()


def _list(list_key: bytes) -> bytes:
    return KEY_PREFIX + b"list:" + list_key.hex().encode()
