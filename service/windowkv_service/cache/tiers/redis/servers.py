"""The servers behind a Redis URL, and exchanges with them under one deadline.

redis-py connects (connect.py) and pools the connections; the bytes go through resp.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis
from redis.exceptions import RedisClusterException

from windowkv_service.cache.tiers.redis.connect import connect, disconnect, rediscover
from windowkv_service.cache.tiers.redis.resp import (
    Command,
    DeadlinePassed,
    ErrorReply,
    Exchange,
    Reply,
    ValueTooLong,
)
from windowkv_service.cache.tiers.redis.url import Topology, parse

_log = logging.getLogger(__name__)
_FAILURES = (redis.RedisError, RedisClusterException, OSError)
_ATTEMPTS = 2  # a connection that broke is replaced once; every command here may be repeated


TOO_LONG = ErrorReply("TOOLONG a value longer than any that was ever written")


class Lost:
    """No reply came to this command."""


LOST = Lost()


@dataclass(frozen=True)
class KeyedCommand:
    """key says which server of a cluster is asked."""

    key: bytes
    command: Command


@dataclass(frozen=True)
class Trouble:
    """Why replies are missing. is_down: until a ping says otherwise, asking again is of no use."""

    reason: str
    is_down: bool
    may_retry: bool


_SKIPPED = Trouble("too_long", is_down=False, may_retry=True)


class RedisServers:
    """Thread-safe. Connects when first asked, so that a server that is not there yet is no reason not to
    start."""

    def __init__(self, url: str, *, connect_timeout_s: float, max_value_bytes: int) -> None:
        self._target = parse(url)
        self._connect_timeout_s = connect_timeout_s
        self._max_value_bytes = max_value_bytes
        self._said = ""
        self._lock = threading.Lock()
        self._client: Any = None
        if (
            self._target.topology is not Topology.CLUSTER
        ):  # a cluster's client asks for the slots as it is made
            self._client = connect(self._target, connect_timeout_s)

    def run(
        self, commands: Sequence[KeyedCommand], deadline: float, window: int
    ) -> tuple[list[Reply | Lost], Trouble | None]:
        """Replies aligned with commands, at most window of them under way at a time; deadline:
        time.monotonic()."""
        replies: list[Reply | Lost] = [LOST] * len(commands)
        trouble = None
        for _ in range(_ATTEMPTS):
            while (trouble := self._attempt(commands, replies, deadline, window)) == _SKIPPED:
                continue  # each time one reply more is settled
            if trouble is None or not trouble.may_retry or time.monotonic() >= deadline:
                break
        return replies, trouble

    def ping(self, timeout_s: float) -> tuple[bool, int, int]:
        """(is up, bytes used, bytes allowed or 0), the bytes over all primaries; a cluster is up while any of them
        is. Never raises."""
        answers = []
        try:
            for pool in self._all_pools():
                answers.append(self._ask(pool, time.monotonic() + timeout_s))
        except Exception as error:  # whatever it is, it is not up; and the thread that asks must go on asking
            self._say(f"{type(error).__name__}: {error}")
        memories = [memory for memory in answers if memory is not None]
        if len(memories) == len(answers) > 0:
            self._said = ""
        used, allowed = (sum(memory[place] for memory in memories) for place in (0, 1))
        return bool(memories), used, allowed

    def _ask(self, pool: Any, deadline: float) -> tuple[int, int] | None:
        """(bytes used, bytes allowed) of one server; None when it does not answer as it should."""
        try:
            pong, memory = self._exchange(pool, [[b"PING"], [b"INFO", b"memory"]], deadline, 2)
        except _FAILURES as error:
            self._say(f"{type(error).__name__}: {error}")
            return None
        if isinstance(pong, ErrorReply):
            self._say(pong.message)
            return None
        return _memory_fact(memory, b"used_memory"), _memory_fact(memory, b"maxmemory")

    def _say(self, trouble: str) -> None:
        """Once, not with every ping."""
        if trouble != self._said:
            self._said = trouble
            _log.warning("redis does not answer as it should: %s", trouble)

    def close(self) -> None:
        if self._client is not None:
            disconnect(self._client)

    def _attempt(
        self, commands: Sequence[KeyedCommand], replies: list[Reply | Lost], deadline: float, window: int
    ) -> Trouble | None:
        """Fill in the replies that are still lost."""
        trouble = None
        lost = [index for index, reply in enumerate(replies) if reply is LOST]
        try:
            groups = self._route(commands, lost)
        except _FAILURES as error:
            return _trouble(error)
        for pool, indices in groups.values():
            received: list[Reply] = []
            try:
                self._exchange(
                    pool, [commands[index].command for index in indices], deadline, window, received
                )
            except ValueTooLong:
                trouble = _SKIPPED
                received.append(TOO_LONG)
            except _FAILURES as error:
                trouble = _trouble(error)
                if self._target.topology is Topology.CLUSTER:  # one node of many: a ping says about them all
                    trouble = replace(trouble, is_down=False)
            for index, reply in zip(indices, received, strict=False):
                replies[index] = reply
        return self._redirect(replies) or trouble

    def _exchange(
        self,
        pool: Any,
        commands: Sequence[Command],
        deadline: float,
        window: int,
        replies: list[Reply] | None = None,
    ) -> list[Reply]:
        """Appends to replies as they come, so that what came before a failure is not lost with it."""
        replies = [] if replies is None else replies
        connection = pool.get_connection()
        is_sound = False
        try:
            exchange = Exchange(connection._sock, deadline, self._max_value_bytes)
            exchange.send(commands[:window])
            for following in range(window, window + len(commands)):
                replies.append(exchange.receive())
                exchange.send(commands[following : following + 1])
            is_sound = not any(
                isinstance(reply, ErrorReply) and reply.code == "READONLY" for reply in replies
            )
        finally:
            if is_sound:
                connection._sock.settimeout(connection.socket_timeout)
            # out of step, or a primary no more: the next use connects anew, through Sentinel where there is
            # one
            else:
                connection.disconnect()
            pool.release(connection)
        return replies

    def _route(
        self, commands: Sequence[KeyedCommand], indices: Sequence[int]
    ) -> dict[int, tuple[Any, list[int]]]:
        """Connection pools and the commands that go to each."""
        client = self._connected()
        groups: dict[int, tuple[Any, list[int]]] = {}
        for index in indices:
            pool = self._pool_of(client, commands[index].key)
            groups.setdefault(id(pool), (pool, []))[1].append(index)
        return groups

    def _pool_of(self, client: Any, key: bytes) -> Any:
        if self._target.topology is not Topology.CLUSTER:
            return client.connection_pool
        return client.get_redis_connection(client.get_node_from_key(key)).connection_pool

    def _all_pools(self) -> list[Any]:
        client = self._connected()
        if self._target.topology is not Topology.CLUSTER:
            return [client.connection_pool]
        rediscover(client)  # a failover is noticed here at the latest
        return [client.get_redis_connection(node).connection_pool for node in client.get_primaries()]

    def _redirect(self, replies: list[Reply | Lost]) -> Trouble | None:
        """A cluster whose slots have moved: learn the new places and ask again."""
        moved = [
            i for i, reply in enumerate(replies) if isinstance(reply, ErrorReply) and reply.code == "MOVED"
        ]
        if not moved:
            return None
        for index in moved:
            replies[index] = LOST
        try:
            rediscover(self._connected())
        except _FAILURES as error:
            return _trouble(error)
        return Trouble("moved", is_down=False, may_retry=True)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = connect(self._target, self._connect_timeout_s)
            return self._client


def _trouble(error: Exception) -> Trouble:
    if isinstance(error, DeadlinePassed):
        return Trouble("stalled" if error.is_stalled else "deadline", is_down=False, may_retry=False)
    if isinstance(error, redis.AuthenticationError):
        return Trouble("auth", is_down=True, may_retry=False)
    if isinstance(error, redis.TimeoutError | TimeoutError):
        return Trouble("timeout", is_down=True, may_retry=False)
    return Trouble("connection", is_down=True, may_retry=True)


def _memory_fact(reply: Reply, name: bytes) -> int:
    if not isinstance(reply, bytes | bytearray):
        return 0  # an ACL may forbid INFO
    for line in reply.split(b"\r\n"):
        if line.startswith(name + b":"):
            return int(line.partition(b":")[2])
    return 0
