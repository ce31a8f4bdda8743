"""A frame is what was packed, or FrameCorrupt."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128

from windowkv_service.cache.frame import (
    DTYPE_BYTES,
    HEADER_BYTES,
    MAX_DIMENSIONS,
    Frame,
    FrameCorrupt,
    FrameKind,
    pack,
    unpack,
)
from windowkv_service.domain.codec import Codec

ADDRESS = bytes(range(32))
LIMIT = 1 << 20
FRAME = Frame(FrameKind.BLOCK, ADDRESS, "float32", (2, 3), memoryview(bytes(range(24))))
RAW = b"".join(pack(FRAME))
WRITTEN_BEFORE_CODECS = bytes.fromhex(
    "574b564601000102666c6f61743332000000000000000000000102030405060708090a0b0c0d0e0f10111213141516171819"
    "1a1b1c1d1e1f1800000000000000020000000300000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000000006a2312e8558139649f2d2774103b532000102030405060708090a0b0c0d0e0f101112131415"
    "1617"
)
CODED = b"".join(pack(Frame(FrameKind.BLOCK, ADDRESS, "float32", (2, 4), memoryview(bytes(16)), Codec.INT8)))

payloads = st.binary(max_size=512)
kinds = st.sampled_from(FrameKind)


def read(raw: bytes, address: bytes = ADDRESS, kind: FrameKind = FrameKind.BLOCK) -> Frame:
    return unpack(raw, address=address, kind=kind, max_bytes=LIMIT)


def resealed(raw: bytearray) -> bytes:
    """With a checksum that holds again: what a writer of another version would have written."""
    facts, payload = raw[: HEADER_BYTES - 16], raw[HEADER_BYTES:]
    return bytes(facts) + xxh3_128(bytes(facts + payload)).digest() + bytes(payload)


@given(kind=kinds, address=st.binary(min_size=32, max_size=32), payload=payloads)
def test_what_was_packed_is_unpacked(kind: FrameKind, address: bytes, payload: bytes) -> None:
    frame = Frame.of(kind, address, payload)
    raw = b"".join(pack(frame))
    assert read(raw, address, kind) == frame
    assert len(raw) == frame.size_bytes


@given(dtype=st.sampled_from(sorted(DTYPE_BYTES)), shape=st.lists(st.integers(1, 3), max_size=MAX_DIMENSIONS))
def test_dtype_and_shape_survive(dtype: str, shape: list[int]) -> None:
    size = DTYPE_BYTES[dtype]
    for length in shape:
        size *= length
    frame = Frame(FrameKind.INDEX, ADDRESS, dtype, tuple(shape), memoryview(bytes(size)))
    assert read(b"".join(pack(frame)), kind=FrameKind.INDEX) == frame


@pytest.mark.parametrize(
    ("codec", "scale_bytes"), [(Codec.INT8, 12), (Codec.FP8, 12), (Codec.INT4, 24)], ids=str
)
def test_codec_and_scales_survive(codec: Codec, scale_bytes: int) -> None:
    payload = memoryview(bytes(range(codec.code_bytes(2 * 4, 4) + scale_bytes)))
    frame = Frame(FrameKind.BLOCK, ADDRESS, "float32", (2, 4), payload, codec)
    raw = b"".join(pack(frame))
    assert read(raw) == frame
    assert raw[96:112] == codec.value.encode().ljust(12, b"\0") + scale_bytes.to_bytes(4, "little")


def test_what_was_written_before_there_were_codecs_is_read_as_exact() -> None:
    assert read(WRITTEN_BEFORE_CODECS) == FRAME
    assert FRAME.codec is Codec.EXACT
    assert RAW == WRITTEN_BEFORE_CODECS, "and by those who know of none"


def test_a_codec_that_nobody_here_knows_is_refused_although_its_checksum_holds() -> None:
    raw = bytearray(CODED)
    raw[96:100] = b"int3"
    with pytest.raises(FrameCorrupt, match="unknown codec"):
        read(resealed(raw))


@pytest.mark.parametrize(
    "change", [(96, 112, bytes(16)), (108, 112, b"\4\0\0\0"), (64, 68, b"\1\0\0\0")], ids=str
)
def test_a_codec_or_scales_that_do_not_fit_the_payload_are_refused(change: tuple[int, int, bytes]) -> None:
    begin, end, replaced = change
    raw = bytearray(CODED)
    assert raw[begin:end] != replaced
    raw[begin:end] = replaced
    with pytest.raises(FrameCorrupt, match="does not fit"):
        read(resealed(raw))


@pytest.mark.parametrize("codec", Codec)
def test_codes_too_few_for_their_shape_are_not_packed(codec: Codec) -> None:
    size = codec.code_bytes(2 * 4, 4) - 1
    with pytest.raises(ValueError, match="are no"):
        pack(Frame(FrameKind.BLOCK, ADDRESS, "float32", (2, 4), memoryview(bytes(size)), codec))


def test_packing_and_unpacking_copy_no_payload() -> None:
    memory = bytearray(24)
    frame = Frame(FrameKind.BLOCK, ADDRESS, "float32", (2, 3), memoryview(memory))
    header, payload = pack(frame)
    raw = bytearray(bytes(header) + bytes(payload))
    unpacked = read(raw)  # type: ignore[arg-type]
    memory[0] = 7
    raw[HEADER_BYTES] = 9
    assert (payload[0], unpacked.payload[0]) == (7, 9)


def test_an_array_of_any_item_size_is_packed_as_its_bytes() -> None:
    words = memoryview(bytes(range(24))).cast("f")
    frame = Frame(FrameKind.BLOCK, ADDRESS, "float32", (2, 3), words)
    assert b"".join(pack(frame)) == RAW


def test_a_flipped_bit_anywhere_in_the_header_is_found() -> None:
    for bit in range(HEADER_BYTES * 8):
        raw = bytearray(RAW)
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameCorrupt):
            read(bytes(raw))


@given(payload=st.binary(min_size=1, max_size=512), data=st.data())
def test_a_flipped_bit_anywhere_in_the_payload_is_found(payload: bytes, data: st.DataObject) -> None:
    raw = bytearray(b"".join(pack(Frame.of(FrameKind.BLOCK, ADDRESS, payload))))
    raw[data.draw(st.integers(HEADER_BYTES, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(FrameCorrupt, match="checksum"):
        read(bytes(raw))


def test_a_frame_cut_anywhere_is_found() -> None:
    for size in range(len(RAW)):
        with pytest.raises(FrameCorrupt):
            read(RAW[:size])


@given(st.binary(min_size=1, max_size=64))
def test_a_frame_with_something_after_it_is_found(more: bytes) -> None:
    with pytest.raises(FrameCorrupt, match="length"):
        read(RAW + more)


@given(st.binary(max_size=300))
def test_noise_is_no_frame(noise: bytes) -> None:
    with pytest.raises(FrameCorrupt):
        read(noise)


def test_a_valid_frame_of_another_address_is_refused() -> None:
    with pytest.raises(FrameCorrupt, match="another address"):
        read(RAW, address=bytes(32))


def test_a_valid_frame_of_another_kind_is_refused() -> None:
    with pytest.raises(FrameCorrupt, match="kind"):
        read(RAW, kind=FrameKind.INDEX)


@pytest.mark.parametrize("version", [0, 2, 0x0100, 0xFFFF])
def test_a_frame_of_another_version_is_refused(version: int) -> None:
    raw = bytearray(RAW)
    struct.pack_into("<H", raw, 4, version)
    with pytest.raises(FrameCorrupt, match="version"):
        read(resealed(raw))


@pytest.mark.parametrize("size", [0, 23, 25, 1 << 20, (1 << 64) - 1])
def test_a_length_that_is_not_the_payloads_is_refused(size: int) -> None:
    raw = bytearray(RAW)
    struct.pack_into("<Q", raw, 56, size)
    with pytest.raises(FrameCorrupt, match="length"):
        read(resealed(raw))


@pytest.mark.parametrize("length", [0, 1, 4, 0xFFFFFFFF])
def test_a_shape_that_does_not_fit_is_refused(length: int) -> None:
    raw = bytearray(RAW)
    struct.pack_into("<I", raw, 64, length)
    with pytest.raises(FrameCorrupt, match="shape"):
        read(resealed(raw))


@pytest.mark.parametrize("ndim", [MAX_DIMENSIONS + 1, 255])
def test_more_dimensions_than_the_header_has_are_refused(ndim: int) -> None:
    raw = bytearray(RAW)
    raw[7] = ndim
    with pytest.raises(FrameCorrupt, match="shape"):
        read(resealed(raw))


@pytest.mark.parametrize("dtype", [b"object", b"\xff\xfe", b"float32 ", b""])
def test_an_unknown_dtype_is_refused(dtype: bytes) -> None:
    raw = bytearray(RAW)
    raw[8:24] = dtype.ljust(16, b"\0")
    with pytest.raises(FrameCorrupt, match="dtype"):
        read(resealed(raw))


def test_a_frame_longer_than_the_limit_is_refused_unread() -> None:
    with pytest.raises(FrameCorrupt, match="longer"):
        unpack(RAW, address=ADDRESS, kind=FrameKind.BLOCK, max_bytes=len(RAW) - 1)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(FrameKind.BLOCK, ADDRESS[:31], "uint8", (1,), memoryview(b"x")),
        Frame(FrameKind.BLOCK, ADDRESS, "uint8", (2,), memoryview(b"x")),
        Frame(FrameKind.BLOCK, ADDRESS, "uint8", (1,) * 9, memoryview(b"x")),
    ],
)
def test_our_own_mistakes_are_refused_when_packing(frame: Frame) -> None:
    with pytest.raises(ValueError):
        pack(frame)
