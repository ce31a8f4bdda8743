"""The contract of a tier: somewhere that keeps frames by address, and may forget any of them at any time.

Called from several threads. A tier is never a source of truth: a frame that was put may be gone a moment
later, and a whole tier may be lost. Nothing here raises for that: put answers False, get answers a Miss. What
get does answer has been verified: its bytes are the ones that were put under that address, with that kind.

Order of use: put ... get | has | extend ... drop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.domain import results
from windowkv_service.domain.keys import Address
from windowkv_service.domain.results import MissReason, TierStatus

MAX_FRAME_BYTES = 64 << 20  # header and payload; nothing longer is ever read


@dataclass(frozen=True)
class Miss:
    """NOT_CACHED: it is not there. CORRUPT: it was, and was wrong. TIER_DOWN: the tier could not say in
    time."""

    reason: MissReason


Found = Frame | Miss


class Tier(Protocol):
    """One tier below the device."""

    @property
    def tier(self) -> results.Tier: ...

    def put(self, frames: Sequence[Frame], ttl_s: float) -> list[bool]:
        """Keep each frame for at least ttl_s; True where it is kept. Blocks and index pieces that are there
        already are not written again, their lives are extended; a manifest replaces the one before it."""
        ...

    def get(self, addresses: Sequence[Address], kind: FrameKind) -> list[Found]:
        """Aligned with addresses. A frame found corrupt is forgotten."""
        ...

    def has(self, addresses: Sequence[Address]) -> list[bool]:
        """Whether something is kept there, unverified; False throughout when the tier is down."""
        ...

    def extend(self, addresses: Sequence[Address], ttl_s: float) -> None:
        """Let each that is there live at least ttl_s from now; lives are never shortened."""
        ...

    def drop(self, addresses: Sequence[Address]) -> bool:
        """Forget them. True when the tier confirmed that none is left."""
        ...

    def status(self) -> TierStatus:
        """What is known now, without asking anybody."""
        ...

    def close(self) -> None:
        """Let go of threads, connections and memory. The tier is not used afterwards."""
        ...
