"""Bytes that prove what they are.

A frame is what a tier stores under one address: a block, a piece of a leader index, or a manifest. A fixed
header states what the payload is and whose; an xxh3-128 over header and payload stands at the header's end.
Whoever reads a frame says which address and kind is expected, so a valid frame in the wrong place is as wrong
as a flipped bit.

Header, 128 bytes, little endian:
    magic 4 | format version 2 | kind 1 | dimensions 1 | dtype 16 | address 32 | payload bytes 8 | shape 8 × 4
    | codec 12, zero where exact | scale bytes 4 | checksum 16

dtype and shape are of the array that the payload stands for. Of another codec than the exact one the payload is codes,
then scales: scale bytes says how many bytes those are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from math import prod

from xxhash import xxh3_128

from windowkv_service.domain.codec import Codec
from windowkv_service.domain.keys import Address

Bytes = bytes | bytearray | memoryview

MAGIC = b"WKVF"
FORMAT_VERSION = 1
MAX_DIMENSIONS = 8
_FACTS = struct.Struct(f"<4sHBB16s32sQ{MAX_DIMENSIONS}I12sI")  # everything but the checksum
_CHECKSUM_BYTES = 16
HEADER_BYTES = _FACTS.size + _CHECKSUM_BYTES

DTYPE_BYTES = {
    "uint8": 1,
    "int8": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float16": 2,
    "bfloat16": 2,
    "int32": 4,
    "float32": 4,
    "float64": 8,
}


class FrameCorrupt(Exception):
    """Stored bytes are not the frame that was asked for; reason says how."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FrameKind(IntEnum):
    BLOCK = 1
    INDEX = 2
    MANIFEST = 3
    ALIAS = 4

    @property
    def is_immutable(self) -> bool:
        """The address of a block or an index piece determines its bytes; the others may be written anew."""
        return self in (FrameKind.BLOCK, FrameKind.INDEX)


def _at_once() -> None:
    return


@dataclass(frozen=True)
class Frame:
    """payload is the raw bytes of a contiguous array of dtype and shape as codec writes them; it must not change
    while a tier reads it. landed waits, in any thread, until the bytes are there: a copy from the device may be under
    way.

    room, where there is one, is memory of the frame's own with the payload at its end and HEADER_BYTES free before it:
    host memory keeps it as it is.
    """

    kind: FrameKind
    address: Address
    dtype: str
    shape: tuple[int, ...]
    payload: memoryview
    codec: Codec = Codec.EXACT
    room: memoryview | None = field(default=None, compare=False, repr=False)
    landed: Callable[[], None] = field(default=_at_once, compare=False, repr=False)

    @classmethod
    def in_room(
        cls,
        kind: FrameKind,
        address: Address,
        dtype: str,
        shape: tuple[int, ...],
        codec: Codec,
        room: memoryview,
        landed: Callable[[], None],
    ) -> Frame:
        """room: HEADER_BYTES and the payload. It is the frame's from now on, and never written to again."""
        return cls(kind, address, dtype, shape, room[HEADER_BYTES:], codec, room, landed)

    @classmethod
    def of(cls, kind: FrameKind, address: Address, payload: Bytes) -> Frame:
        """A frame of plain bytes, without an array's dtype and shape."""
        return cls(kind, address, "uint8", (len(payload),), memoryview(payload))

    @property
    def size_bytes(self) -> int:
        """What a tier stores for it."""
        return HEADER_BYTES + self.payload.nbytes


def pack(frame: Frame) -> list[memoryview]:
    """The header, then the payload itself, uncopied: together the bytes to store. Waits until they have landed."""
    frame.landed()
    payload = frame.payload.cast("B")
    if len(frame.address) != 32 or len(frame.shape) > MAX_DIMENSIONS:
        raise ValueError(f"not a frame: {len(frame.address)} bytes of address, shape {frame.shape}")
    scale_bytes = _scale_bytes(frame.codec, frame.dtype, frame.shape, payload.nbytes)
    if scale_bytes is None:
        what = f"{frame.codec.value} of {frame.dtype} of shape {frame.shape}"
        raise ValueError(f"{payload.nbytes} bytes are no {what}")
    shape = frame.shape + (0,) * (MAX_DIMENSIONS - len(frame.shape))
    dtype = frame.dtype.encode("ascii")
    facts = _FACTS.pack(
        MAGIC,
        FORMAT_VERSION,
        frame.kind,
        len(frame.shape),
        dtype,
        frame.address,
        len(payload),
        *shape,
        frame.codec.tag,
        scale_bytes,
    )
    return [memoryview(facts + _checksum(facts, payload)), payload]


def unpack(raw: Bytes, *, address: Address, kind: FrameKind, max_bytes: int) -> Frame:
    """The frame in raw, its payload a view of it, or FrameCorrupt. max_bytes bounds header and payload
    together."""
    stored = memoryview(raw).cast("B")
    if len(stored) < HEADER_BYTES:
        raise FrameCorrupt("shorter than a header")
    if len(stored) > max_bytes:
        raise FrameCorrupt("longer than any frame")
    facts, payload = stored[: _FACTS.size], stored[HEADER_BYTES:]
    magic, version, kind_number, ndim, dtype, owner, size, *rest = _FACTS.unpack(facts)
    if magic != MAGIC:
        raise FrameCorrupt("not a frame")
    if version != FORMAT_VERSION:
        raise FrameCorrupt("another format version")
    if size != len(payload):
        raise FrameCorrupt("payload length differs")
    if stored[_FACTS.size : HEADER_BYTES] != _checksum(facts, payload):
        raise FrameCorrupt("checksum differs")
    if owner != address:
        raise FrameCorrupt("bytes of another address")
    if kind_number != kind:
        raise FrameCorrupt("another kind")
    shape, (tag, scale_bytes) = tuple(rest[: min(ndim, MAX_DIMENSIONS)]), rest[MAX_DIMENSIONS:]
    frame = Frame(kind, address, _text(dtype), shape, payload, _codec(tag))
    _check_array(frame, ndim, scale_bytes)
    return frame


def _check_array(frame: Frame, ndim: int, scale_bytes: int) -> None:
    """Last: a writer of another version may hold a valid checksum over facts that we cannot use."""
    if frame.dtype not in DTYPE_BYTES or ndim > MAX_DIMENSIONS:
        raise FrameCorrupt("unknown dtype or shape")
    if scale_bytes != _scale_bytes(frame.codec, frame.dtype, frame.shape, frame.payload.nbytes):
        raise FrameCorrupt("shape does not fit the payload")


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode("ascii", "replace")


def _codec(tag: bytes) -> Codec:
    try:
        return Codec.of_tag(tag.rstrip(b"\0"))
    except ValueError:
        raise FrameCorrupt("unknown codec") from None


def _scale_bytes(codec: Codec, dtype: str, shape: tuple[int, ...], size: int) -> int | None:
    """What is left of the payload behind the array's codes; None where it cannot be that array. Only what is not exact
    has scales."""
    left = size - codec.code_bytes(prod(shape), DTYPE_BYTES[dtype])
    return left if left == 0 or (left > 0 and not codec.is_exact) else None


def _checksum(facts: Bytes, payload: memoryview) -> bytes:
    digest = xxh3_128(facts)
    digest.update(payload)
    return digest.digest()
