"""An alias's record survives its way to Redis and back, and nothing else passes for one."""

from __future__ import annotations

import struct

import pytest
from cache_events import address

from windowkv_service.cache.alias_record import AliasRecord, read, write
from windowkv_service.cache.frame import Frame, FrameCorrupt, FrameKind

CACHE_ID = "0123456789abcdef" * 2 + "01234567"


def test_what_was_written_is_read() -> None:
    record = AliasRecord(CACHE_ID, 1_800_000_000.25)
    frame = write(address(1), record)
    assert (frame.kind, frame.address) == (FrameKind.ALIAS, address(1))
    assert read(frame) == record


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"x" * 47,
        b"x" * 49,
        struct.pack("<d40s", 1.0, CACHE_ID.upper().encode()),
        struct.pack("<d40s", 1.0, b"../../etc/passwd"),
        struct.pack("<d40s", float("nan"), CACHE_ID.encode()),
        struct.pack("<d40s", float("inf"), CACHE_ID.encode()),
    ],
)
def test_a_whole_frame_of_nonsense_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameCorrupt):
        read(Frame.of(FrameKind.ALIAS, address(1), payload))
