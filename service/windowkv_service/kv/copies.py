"""Copies between device and host memory that run beside the model: nobody waits for them who does not need them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from windowkv_service.kv.page_locked import page_locked
from windowkv_service.kv.slab import Slab


class Landing(Protocol):
    """Some copies under way."""

    def is_done(self) -> bool: ...

    def wait(self) -> None:
        """Until they are done; any thread may."""
        ...


class Copies(Protocol):
    """Called from the worker's thread, take from any."""

    def take(self, size_bytes: int) -> memoryview:
        """Host memory that these copies are quick with, the caller's until the last view of it is gone."""
        ...

    def out(self, sources: Sequence[Tensor], targets: Sequence[memoryview]) -> Landing:
        """Contiguous tensors to host memory, in this order. What was queued on the sources before comes first; they may
        be forgotten at once, but not written to until the copies have landed."""
        ...

    def into(self, sources: Sequence[memoryview], targets: Sequence[Tensor]) -> Landing:
        """Host memory to contiguous tensors, each its bytes. What was queued on the targets before comes first. Nobody
        reads or writes them until they have landed."""
        ...


class _Landed:
    def is_done(self) -> bool:
        return True

    def wait(self) -> None:
        return


class PlainCopies:
    """Of a worker without a GPU, whose device is host memory: made at once."""

    def take(self, size_bytes: int) -> memoryview:
        return memoryview(bytearray(size_bytes))

    def out(self, sources: Sequence[Tensor], targets: Sequence[memoryview]) -> Landing:
        for source, target in zip(sources, targets, strict=True):
            _tensor(target).copy_(_bytes(source))
        return _Landed()

    def into(self, sources: Sequence[memoryview], targets: Sequence[Tensor]) -> Landing:
        for source, target in zip(sources, targets, strict=True):
            _bytes(target).copy_(_tensor(source))
        return _Landed()


class _StreamLanding:
    def __init__(self, event: torch.cuda.Event, held: Sequence[Tensor]) -> None:
        self._event = event
        self._held = held  # host memory: nobody else is given it while the device writes to it or reads it

    def is_done(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        self._event.synchronize()


class StreamCopies:
    """Of a GPU: one stream each way, from and to page-locked memory. Ordinary memory works too and makes the worker
    wait."""

    def __init__(self, device: torch.device, capacity_bytes: int) -> None:
        self._device = device
        self._slab = Slab(page_locked(capacity_bytes, device))
        self._out: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._into: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._under_way: deque[_StreamLanding] = deque()

    def take(self, size_bytes: int) -> memoryview:
        return self._slab.take(size_bytes)

    def out(self, sources: Sequence[Tensor], targets: Sequence[memoryview]) -> Landing:
        pairs = [(_tensor(target), _bytes(source)) for source, target in zip(sources, targets, strict=True)]
        for source in sources:
            source.record_stream(self._out)
        return self._copy(self._out, pairs, [target for target, _ in pairs])

    def into(self, sources: Sequence[memoryview], targets: Sequence[Tensor]) -> Landing:
        pairs = [(_bytes(target), _tensor(source)) for source, target in zip(sources, targets, strict=True)]
        return self._copy(self._into, pairs, [source for _, source in pairs])

    def _copy(
        self, stream: torch.cuda.Stream, pairs: Sequence[tuple[Tensor, Tensor]], on_host: Sequence[Tensor]
    ) -> Landing:
        while self._under_way and self._under_way[0].is_done():
            self._under_way.popleft()
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for target, source in pairs:
                target.copy_(source, non_blocking=True)
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record(stream)
        landing = _StreamLanding(event, on_host)
        self._under_way.append(landing)
        return landing


def copies_of(device: torch.device, capacity_bytes: int) -> Copies:
    """capacity_bytes of page-locked memory where there is a GPU to copy to and from."""
    return StreamCopies(device, capacity_bytes) if device.type == "cuda" else PlainCopies()


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.flatten().view(torch.uint8)


def _tensor(memory: memoryview) -> Tensor:
    """The memory itself as a tensor of bytes; read-only memory is copied, for torch knows no such thing."""
    return torch.frombuffer(bytearray(memory) if memory.readonly else memory, dtype=torch.uint8)
