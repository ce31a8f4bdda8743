"""The Redis protocol under one deadline, over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from windowkv_service.cache.tiers.redis.resp import (
    DeadlinePassed,
    ErrorReply,
    Exchange,
    ProtocolBroken,
    Reply,
    ValueTooLong,
    encode,
)

LIMIT = 1 << 20


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def exchange(sock: socket.socket, seconds: float = 10.0) -> Exchange:
    return Exchange(sock, time.monotonic() + seconds, LIMIT)


def reply_to(pair: tuple[socket.socket, socket.socket], raw: bytes) -> Reply:
    ours, theirs = pair
    theirs.sendall(raw)
    theirs.shutdown(socket.SHUT_WR)
    return exchange(ours).receive()


@pytest.mark.parametrize(
    ("raw", "reply"),
    [
        (b"+OK\r\n", b"OK"),
        (b":-12\r\n", -12),
        (b"-OOM no room\r\n", ErrorReply("OOM no room")),
        (b"$5\r\nhe\r\no\r\n", b"he\r\no"),
        (b"$0\r\n\r\n", b""),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"*0\r\n", []),
        (b"*3\r\n:1\r\n$1\r\na\r\n*1\r\n$-1\r\n", [1, b"a", [None]]),
    ],
)
def test_each_kind_of_reply(pair: tuple[socket.socket, socket.socket], raw: bytes, reply: Reply) -> None:
    assert reply_to(pair, raw) == reply


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n",
        b"$x\r\n",
        b"$-2\r\n",
        b"$3\r\nabcXY",
        b":1.5\r\n",
        b"*9999999999\r\n",
        b"*-7\r\n",
        b"+" + b"x" * 100_000,
    ],
)
def test_what_is_no_reply_breaks_the_exchange(pair: tuple[socket.socket, socket.socket], raw: bytes) -> None:
    with pytest.raises(ProtocolBroken):
        reply_to(pair, raw)


@pytest.mark.parametrize("raw", [b"", b"$5\r\nhel", b"+O", b"*2\r\n:1\r\n"])
def test_an_end_in_the_middle_is_a_lost_connection(
    pair: tuple[socket.socket, socket.socket], raw: bytes
) -> None:
    with pytest.raises(ConnectionError, match="closed"):
        reply_to(pair, raw)


def test_a_value_beyond_the_limit_is_not_read(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(ValueTooLong):
        reply_to(pair, b"$99999999999999\r\n")


def test_replies_that_arrive_byte_by_byte_are_put_together(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair

    def trickle() -> None:
        for byte in b"$6\r\nabcdef\r\n+OK\r\n":
            theirs.sendall(bytes([byte]))

    threading.Thread(target=trickle, daemon=True).start()
    both = exchange(ours)
    assert (both.receive(), both.receive()) == (b"abcdef", b"OK")


def test_a_server_that_says_nothing_is_stalled(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(DeadlinePassed) as passed:
        exchange(pair[0], 0.02).receive()
    assert passed.value.is_stalled


def test_bytes_that_trickle_do_not_move_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    over = threading.Event()

    def trickle() -> None:
        theirs.sendall(b"$1000000\r\n")
        while not over.wait(0.002):
            theirs.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    with pytest.raises(DeadlinePassed) as passed:
        exchange(ours, 0.1).receive()
    over.set()
    thread.join()
    assert not passed.value.is_stalled


def test_a_server_that_does_not_read_does_not_move_the_deadline(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    with pytest.raises(DeadlinePassed):
        exchange(pair[0], 0.05).send([[b"SET", b"key", bytes(1 << 24)]])


def test_a_command_is_sent_as_an_array_of_values() -> None:
    assert b"".join(encode([b"SET", b"k", b""])) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n"


def test_a_value_in_several_buffers_is_sent_as_one_and_not_copied() -> None:
    header, payload = memoryview(b"header"), memoryview(bytes(100_000))
    parts = encode([b"SET", b"k", [header, payload]])
    assert any(part is payload for part in parts)
    assert b"$100006\r\nheader" in b"".join(parts)


def test_what_is_sent_arrives_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    commands = [
        [b"SET", b"%d" % n, memoryview(bytes([n]) * size)] for n, size in enumerate((1, 20_000, 2, 70_000))
    ]
    sent = threading.Thread(target=exchange(ours).send, args=[commands])
    sent.start()
    expected = b"".join(part for command in commands for part in encode(command))
    received = b""
    while len(received) < len(expected):
        received += theirs.recv(1 << 16)
    sent.join()
    assert received == expected
