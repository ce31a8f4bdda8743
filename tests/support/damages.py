"""What can happen to a value in Redis."""

from __future__ import annotations

from collections.abc import Callable

from redis_server import RedisServer

from windowkv_service.cache.frame import HEADER_BYTES


def flip(bit: int) -> Callable[[RedisServer, bytes], None]:
    """A negative bit counts from the value's end."""

    def damage(redis: RedisServer, value: bytes) -> None:
        redis.flip_bit(value, bit % (8 * redis.client.strlen(value)))

    return damage


def cut(size: int) -> Callable[[RedisServer, bytes], None]:
    def damage(redis: RedisServer, value: bytes) -> None:
        redis.truncate(value, size % redis.client.strlen(value))

    return damage


def replace(redis: RedisServer, value: bytes) -> None:
    redis.client.set(value, b"something else", keepttl=True)


def retype(redis: RedisServer, value: bytes) -> None:
    redis.client.delete(value)
    redis.client.rpush(value, b"a list")


def lengthen(redis: RedisServer, value: bytes) -> None:
    redis.client.append(value, b"\0")


DAMAGES: dict[str, Callable[[RedisServer, bytes], None]] = {
    "a bit of the magic": flip(3),
    "a bit of the address": flip(8 * 40),
    "a bit of the checksum": flip(8 * (HEADER_BYTES - 1)),
    "the first payload bit": flip(8 * HEADER_BYTES),
    "the last bit": flip(-1),
    "cut to nothing": cut(0),
    "cut within the header": cut(HEADER_BYTES - 1),
    "cut to the header": cut(HEADER_BYTES),
    "its last byte missing": cut(-1),
    "a byte too many": lengthen,
    "other bytes": replace,
}
