"""What transfers are asked to do, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from windowkv_service.cache.frame import Frame
from windowkv_service.cache.tiers.base import Found
from windowkv_service.domain.keys import Address
from windowkv_service.domain.results import Tier


class JobKind(Enum):
    SPILL = "spill"
    FETCH = "fetch"
    MANIFEST = "manifest"
    MANIFESTS = "manifests"
    ALIAS = "alias"
    PROBE = "probe"
    DROP = "drop"
    EXTEND = "extend"


R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@dataclass(eq=False)
class Job(Generic[R]):
    """One piece of work beside the engine. result is final once poll() has answered the job; until then, and
    when the work broke down by our own fault, it is what is true of work not done."""

    kind: JobKind
    result: R
    is_done: bool = False
    seconds: float = 0.0  # from submission to the end


@dataclass(frozen=True)
class ManifestWrite:
    """The manifest that makes an entry readable under list_key. requires: all that it speaks of. It is
    written only if what of that is not spilled with it is in Redis already: a prefix that was spilled before,
    or by another worker.
    """

    list_key: bytes
    frame: Frame
    requires: Sequence[Address] = ()


@dataclass(frozen=True)
class ManifestRef:
    list_key: bytes
    address: Address


@dataclass(frozen=True)
class Spilled:
    """tiers: those that acknowledged every frame, and Redis only with the manifest where there is one."""

    tiers: frozenset[Tier] = frozenset()
    seconds: float = 0.0


@dataclass(frozen=True)
class Fetched:
    """found and sources are aligned with the addresses asked for; a source is None where found is a Miss."""

    found: Sequence[Found] = ()
    sources: Sequence[Tier | None] = ()
    size_bytes: int = 0
    seconds: float = 0.0

    @property
    def is_complete(self) -> bool:
        return all(isinstance(one, Frame) for one in self.found)


@dataclass(frozen=True)
class Probed:
    """How many windows from the first are below as a whole."""

    leading_windows: int = 0
