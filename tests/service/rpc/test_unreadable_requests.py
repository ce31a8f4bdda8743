"""Bytes that are no message: refused as the caller's mistake, in unary calls and streams."""

from __future__ import annotations

import pytest
from grpc import aio
from refusals import refusal_of
from served_wire import ServedWire

GENERATE = "/windowkv.v1.GenerationService/Generate"
TOKENIZE = "/windowkv.v1.ModelService/Tokenize"

# field 3 (input), length 4: field 1 (text), length 2: not UTF-8
LATIN_1_IN_GENERATE = b"\x1a\x04\x0a\x02\xe9\xff"
LATIN_1_IN_TOKENIZE = b"\x12\x04\x0a\x02\xe9\xff"
SURROGATE_IN_TOKENIZE = b"\x12\x05\x0a\x03\xed\xa0\x80"
GARBAGE = b"\xff" * 20


@pytest.mark.parametrize("request_bytes", [LATIN_1_IN_TOKENIZE, SURROGATE_IN_TOKENIZE, GARBAGE])
async def test_a_unary_call_with_unreadable_bytes_is_refused(wire: ServedWire, request_bytes: bytes) -> None:
    refusal = await refusal_of(wire.channel.unary_unary(TOKENIZE)(request_bytes))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_TEXT")


@pytest.mark.parametrize("request_bytes", [LATIN_1_IN_GENERATE, GARBAGE])
async def test_a_stream_with_unreadable_bytes_is_refused(wire: ServedWire, request_bytes: bytes) -> None:
    call: aio.UnaryStreamCall[bytes, bytes] = wire.channel.unary_stream(GENERATE)(request_bytes)
    refusal = await refusal_of(call.read())
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_TEXT")
    assert wire.engine.requests == []
