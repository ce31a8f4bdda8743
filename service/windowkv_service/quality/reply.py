"""One answer, scored, and the bytes that the service counted for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """All bytes are on the device; all but the tail's are the cached prompt's.

    entry_bytes: what the cache holds between questions (`cache.stored_bytes`).
    device_bytes: the same while answering, with what the answer reads, each block once (`usage.device_bytes`).
    tail_bytes: beside those, the blocks of the tokens behind the cached prompt: the question's, where it came later,
    and the answer's (`usage.tail_bytes`). full_bytes: the uncompressed cache of the same prompt.
    fidelity: the service's own estimate. is_cut: the prompt lost its middle.
    """

    said: str
    score: float
    entry_bytes: int
    device_bytes: int
    tail_bytes: int
    full_bytes: int
    fidelity: float
    is_cut: bool
