"""The Redis protocol (RESP2), as far as a tier of large values needs it, over a socket that somebody else
connected.

redis-py's own calls copy every value twice on its way out and twice on its way in, and their time limits
start anew with every packet. Here values leave as the buffers they are, arrive in a buffer allocated once,
and one deadline bounds the whole exchange however slowly the bytes trickle.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Part = bytes | memoryview
Argument = Part | list[memoryview]  # a list is one value in several buffers
Command = Sequence[Argument]

_LINE_LIMIT = 64 << 10
_ARRAY_LIMIT = 1 << 20
_SMALL = 16 << 10  # what is copied into one buffer before it is sent


@dataclass(frozen=True)
class ErrorReply:
    """The server refused one command. code is the message's first word: OOM, READONLY, MOVED, ..."""

    message: str

    @property
    def code(self) -> str:
        return self.message.partition(" ")[0]


class ProtocolBroken(ConnectionError):
    """What came is not RESP, or longer than allowed; the connection is of no further use."""


class ValueTooLong(ProtocolBroken):
    """One value is longer than any that was ever written; what follows it is not read."""


class DeadlinePassed(TimeoutError):
    """is_stalled: not one byte came back since the exchange began."""

    def __init__(self, is_stalled: bool) -> None:
        super().__init__("the exchange did not end in time")
        self.is_stalled = is_stalled


Reply = bytes | bytearray | int | None | ErrorReply | list["Reply"]


class Exchange:
    """One use of a connected socket; after an exception the socket must be closed."""

    def __init__(self, sock: socket.socket, deadline: float, max_value_bytes: int) -> None:
        """deadline: time.monotonic() seconds."""
        self._sock = sock
        self._deadline = deadline
        self._max_value_bytes = max_value_bytes
        self._buffer = b""
        self._has_received = False

    def send(self, commands: Iterable[Command]) -> None:
        for part in _coalesce(part for command in commands for part in encode(command)):
            self._limit()
            try:
                self._sock.sendall(part)
            except TimeoutError:
                raise DeadlinePassed(not self._has_received) from None

    def receive(self) -> Reply:
        kind, line = self._line()
        if kind == b"+":
            return line
        if kind == b"-":
            return ErrorReply(line.decode("utf-8", "replace"))
        if kind == b":":
            return _integer(line)
        if kind == b"$":
            return self._bulk(_integer(line))
        if kind == b"*":
            return self._array(_integer(line))
        raise ProtocolBroken("not a reply")

    def _bulk(self, size: int) -> bytearray | None:
        if size == -1:
            return None
        if size > self._max_value_bytes:
            raise ValueTooLong(f"a value of {size} bytes")
        if size < 0:
            raise ProtocolBroken("a value of negative length")
        value = bytearray(size)
        ready = min(size, len(self._buffer))
        value[:ready], self._buffer = self._buffer[:ready], self._buffer[ready:]
        with memoryview(value) as target:
            while ready < size:
                ready += self._receive_into(target[ready:])
        if self._take(2) != b"\r\n":
            raise ProtocolBroken("a value without an end")
        return value

    def _array(self, length: int) -> list[Reply] | None:
        if length == -1:
            return None
        if not 0 <= length <= _ARRAY_LIMIT:
            raise ProtocolBroken(f"an array of {length}")
        return [self.receive() for _ in range(length)]

    def _line(self) -> tuple[bytes, bytes]:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _LINE_LIMIT:
                raise ProtocolBroken("a line without an end")
            self._fill()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line[:1], line[1:]

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _fill(self) -> None:
        piece = bytearray(4096)  # small: what follows a value's length is read straight into its place
        self._buffer += piece[: self._receive_into(memoryview(piece))]

    def _receive_into(self, target: memoryview) -> int:
        self._limit()
        try:
            size = self._sock.recv_into(target)
        except TimeoutError:
            raise DeadlinePassed(not self._has_received) from None
        if size == 0:
            raise ConnectionError("closed by the server")
        self._has_received = True
        return size

    def _limit(self) -> None:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise DeadlinePassed(not self._has_received)
        self._sock.settimeout(remaining)


def encode(command: Command) -> list[Part]:
    """The command as it goes over the wire; large buffers are passed on, not copied."""
    parts: list[Part] = [b"*%d\r\n" % len(command)]
    for argument in command:
        buffers = argument if isinstance(argument, list) else [argument]
        parts.append(b"$%d\r\n" % sum(len(buffer) for buffer in buffers))
        parts += buffers
        parts.append(b"\r\n")
    return parts


def _coalesce(parts: Iterable[Part]) -> Iterable[Part]:
    """Join neighbours that are small, so that a packet carries more than a length."""
    small = bytearray()
    for part in parts:
        if len(part) < _SMALL:
            small += part
            continue
        if small:
            yield bytes(small)
            small.clear()
        yield part
    if small:
        yield bytes(small)


def _integer(line: bytes) -> int:
    try:
        return int(line)
    except ValueError:
        raise ProtocolBroken("not a number") from None
