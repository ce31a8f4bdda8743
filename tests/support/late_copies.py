"""Copies that land late, as a GPU's do: a thread makes them one after the other, when it comes to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from windowkv_service.kv.copies import Landing, PlainCopies


class LateCopies:
    """Each takes delay_s more than the copying."""

    def __init__(self, delay_s: float = 0.01) -> None:
        self._delay_s = delay_s
        self._plain = PlainCopies()
        self._lane = ThreadPoolExecutor(1, "late-copies")

    def take(self, size_bytes: int) -> memoryview:
        return self._plain.take(size_bytes)

    def out(self, sources: Sequence[Tensor], targets: Sequence[memoryview]) -> Landing:
        return _Late(self._lane.submit(self._out, list(sources), list(targets)))

    def into(self, sources: Sequence[memoryview], targets: Sequence[Tensor]) -> Landing:
        return _Late(self._lane.submit(self._into, list(sources), list(targets)))

    def _out(self, sources: Sequence[Tensor], targets: Sequence[memoryview]) -> None:
        time.sleep(self._delay_s)
        self._plain.out(sources, targets)

    def _into(self, sources: Sequence[memoryview], targets: Sequence[Tensor]) -> None:
        time.sleep(self._delay_s)
        self._plain.into(sources, targets)


class _Late:
    def __init__(self, copying: Future[None]) -> None:
        self._copying = copying

    def is_done(self) -> bool:
        return self._copying.done()

    def wait(self) -> None:
        self._copying.result()
