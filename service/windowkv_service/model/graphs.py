"""Computations on static memory, held as CUDA graphs: launching some thousand kernels one by one takes a GPU longer
than running them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

Result = TypeVar("Result")


class Hold(Protocol):
    """Makes a computation on static memory one that can be repeated; what it answers is always in the same place."""

    def __call__(self, compute: Callable[[], Result], /) -> Callable[[], Result]: ...


def as_it_is(compute: Callable[[], Result], /) -> Callable[[], Result]:
    return compute


class Graphs:
    """Computations captured as CUDA graphs; they share the memory of what they compute on the way, for only one of them
    runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._beside: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, compute: Callable[[], Result], /) -> Callable[[], Result]:
        """compute on static memory → its replay. It is run once before, which compiles what is not compiled yet:
        running it twice must do what running it once does."""
        current = torch.cuda.current_stream(self._device)
        self._beside.wait_stream(current)
        with torch.cuda.stream(self._beside):
            compute()
        current.wait_stream(self._beside)
        graph = torch.cuda.CUDAGraph()
        # Transfers' threads wait for events meanwhile, which only a capture of this thread alone allows.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = compute()

        def replay() -> Result:
            graph.replay()
            return output

        return replay
