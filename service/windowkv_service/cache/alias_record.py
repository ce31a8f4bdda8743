"""Which cache an alias names, as the bytes of an ALIAS frame: what the workers of a fleet agree on.

Manifests name aliases too, but only so that a listing can show them: of two manifests nobody knows which is right.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from math import isfinite

from windowkv_service.cache.frame import Frame, FrameCorrupt, FrameKind
from windowkv_service.domain.keys import Address

_LAYOUT = struct.Struct("<d40s")
_CACHE_ID = re.compile(rb"[0-9a-f]{40}")


@dataclass(frozen=True)
class AliasRecord:
    """given_time: seconds since the epoch; of two records the later one counts."""

    cache_id: str
    given_time: float


def write(address: Address, record: AliasRecord) -> Frame:
    return Frame.of(FrameKind.ALIAS, address, _LAYOUT.pack(record.given_time, record.cache_id.encode()))


def read(frame: Frame) -> AliasRecord:
    """FrameCorrupt for a whole frame that says nothing sensible."""
    if frame.payload.nbytes != _LAYOUT.size:
        raise FrameCorrupt("not an alias")
    given_time, cache_id = _LAYOUT.unpack(frame.payload)
    if not _CACHE_ID.fullmatch(cache_id) or not isfinite(given_time):
        raise FrameCorrupt("not an alias")
    return AliasRecord(cache_id.decode(), given_time)
