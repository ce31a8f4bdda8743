"""What is on its way between tiers, so that reads, writes and drops that meet do not contradict each
other."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.tiers.base import Tier
from windowkv_service.domain.keys import Address


@dataclass(eq=False)
class Reading:
    """A fetch under way, and what was dropped since it began."""

    revoked: set[Address] = field(default_factory=set)


class InFlight:
    """Thread-safe.

    A frame being spilled can be read before any tier has it. What is dropped can neither be read from a spill
    that is still under way, nor be put back into the host tier by a fetch that had already read it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spilling: dict[Address, list[Frame]] = {}
        self._dropping: Counter[Address] = Counter()
        self._readings: set[Reading] = set()

    def begin_spill(self, frames: Sequence[Frame]) -> None:
        with self._lock:
            for frame in frames:
                self._spilling.setdefault(frame.address, []).append(frame)

    def end_spill(self, frames: Sequence[Frame]) -> None:
        """From now on the frames' memory may be used for something else."""
        with self._lock:
            for frame in frames:
                ours = [one for one in self._spilling.get(frame.address, ()) if one is not frame]
                if ours:
                    self._spilling[frame.address] = ours
                else:
                    self._spilling.pop(frame.address, None)

    def copy_of(self, address: Address, kind: FrameKind) -> Frame | None:
        """A frame on its way down, as a copy: the original's memory is the spiller's."""
        frame = self._find(address, kind)
        if frame is None:
            return None
        frame.landed()  # outside the lock: others are not to wait for the device
        with self._lock:
            is_still_there = any(one is frame for one in self._spilling.get(address, ()))
            return (
                replace(frame, payload=memoryview(bytearray(frame.payload)), room=None)
                if is_still_there
                else None
            )

    def _find(self, address: Address, kind: FrameKind) -> Frame | None:
        with self._lock:
            return next((one for one in self._spilling.get(address, ()) if one.kind == kind), None)

    def has(self, address: Address) -> bool:
        with self._lock:
            return address in self._spilling

    def begin_drop(self, addresses: Sequence[Address]) -> None:
        with self._lock:
            self._dropping.update(addresses)
            for address in addresses:
                self._spilling.pop(address, None)

    def end_drop(self, addresses: Sequence[Address]) -> None:
        """Fetches that are under way may have read before the drop and keep after it."""
        with self._lock:
            self._dropping.subtract(addresses)
            for address in addresses:
                if self._dropping[address] <= 0:
                    del self._dropping[address]
            for reading in self._readings:
                reading.revoked.update(addresses)

    def begin_read(self) -> Reading:
        reading = Reading()
        with self._lock:
            self._readings.add(reading)
        return reading

    def end_read(self, reading: Reading) -> None:
        with self._lock:
            self._readings.discard(reading)

    def keep(self, tier: Tier, frames: Sequence[Frame], reading: Reading, ttl_s: float) -> None:
        """Put into tier what was read, except what was dropped. One frame at a time, so that nobody who needs
        this table waits for more than one copy."""
        for frame in frames:
            with self._lock:  # no drop begins between the question and the put
                if frame.address not in reading.revoked and frame.address not in self._dropping:
                    tier.put([frame], ttl_s)
