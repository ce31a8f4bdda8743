"""Decode steps over static memory: replayed as CUDA graphs on a GPU, run as they are elsewhere.

Launching a step's some thousand kernels one by one takes a GPU longer than running them. A graph holds one shape, so
batches are padded into buckets; tables wider than what they hold cost nothing (num_filled), rows of padding little.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from windowkv_service.model.graphs import Graphs, Hold, as_it_is
from windowkv_service.model.runner import Runner
from windowkv_service.model.step_buffers import Stack, StackShape, StepBuffers

Compute = Callable[[], Tensor]


@dataclass(frozen=True)
class Buckets:
    """The shapes that are computed, and how many of them are held, whose tables together take at most max_bytes, or
    are of one shape. has_padding False: every shape is its own."""

    has_padding: bool
    max_held: int
    max_bytes: int = 1 << 30

    def shape(self, shape: StackShape) -> StackShape:
        if not self.has_padding:
            return shape
        count = shape.num_sequences
        return replace(
            shape,
            num_sequences=_power(count, 2) if count <= 16 else -(-count // 16) * 16,
            num_blocks=max(64, _power(shape.num_blocks, 4)),
            capacity=max(256, _power(shape.capacity, 4)),
            num_shared=max(64, _power(shape.num_shared, 4)) if shape.num_shared else 0,
        )


EXACT = Buckets(has_padding=False, max_held=1)
PADDED = Buckets(has_padding=True, max_held=64)


@dataclass(frozen=True)
class _Held:
    buffers: StepBuffers
    logits: Compute


class DecodeSteps:
    """One batch at a time: begin, then logits and feed in turn. hold makes a computation on static memory one that can
    be repeated."""

    def __init__(
        self,
        runner: Runner,
        window_size: int,
        device: torch.device,
        buckets: Buckets = EXACT,
        hold: Hold = as_it_is,
    ) -> None:
        self._runner = runner
        self._window_size = window_size
        self._device = device
        self._buckets = buckets
        self._hold = hold
        self._held: OrderedDict[tuple[StackShape, ...], _Held] = OrderedDict()  # least recently used first
        self._current: _Held | None = None

    @classmethod
    def on(cls, runner: Runner, window_size: int, device: torch.device) -> DecodeSteps:
        """As the device wants it: captured and padded on a GPU."""
        if device.type == "cuda":
            return cls(runner, window_size, device, PADDED, Graphs(device))
        return cls(runner, window_size, device)

    def begin(
        self, stacks: Sequence[Stack], token_ids: Tensor, positions: Tensor, tail_lengths: Tensor
    ) -> None:
        """Another batch. stacks: of all layers. token_ids, positions, tail_lengths [B]: the token that each
        sequence runs next, where it stands, and how many tokens of its tail are before it."""
        self._current = held = self._find(tuple(self._buckets.shape(stack.shape) for stack in stacks))
        held.buffers.take(stacks, token_ids, positions, tail_lengths)

    def logits(self) -> Tensor:
        """Run each sequence's token; [B, vocab_size], overwritten by the next step. Nothing waits for the host."""
        assert self._current is not None, "begin comes first"
        return self._current.logits()[: self._current.buffers.num_sequences]

    def feed(self, token_ids: Tensor) -> None:
        """token_ids [B], on the device: what each sequence runs next."""
        assert self._current is not None, "begin comes first"
        self._current.buffers.feed(token_ids)

    def _find(self, shapes: tuple[StackShape, ...]) -> _Held:
        if shapes not in self._held:
            size_bytes = sum(shape.size_bytes(self._window_size) for shape in shapes)
            while self._held and not self._fits(size_bytes):
                self._forget()
            self._held[shapes] = self._make(shapes)
        self._held.move_to_end(shapes)
        return self._held[shapes]

    def _fits(self, size_bytes: int) -> bool:
        """Whether another bucket with tables of so many bytes may be held beside the others."""
        held_bytes = sum(shape.size_bytes(self._window_size) for shapes in self._held for shape in shapes)
        return len(self._held) < self._buckets.max_held and held_bytes + size_bytes <= self._buckets.max_bytes

    def _forget(self) -> None:
        """Let go of a bucket, once nothing of it runs any more."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        self._held.popitem(last=False)

    def _make(self, shapes: tuple[StackShape, ...]) -> _Held:
        """Held while it has no sequences in it: what runs before a capture writes nothing."""
        buffers = StepBuffers(shapes, self._window_size, self._device)

        def compute() -> Tensor:
            return self._runner.logits(buffers.token_ids, buffers.positions, buffers.tables())

        return _Held(buffers, self._hold(compute))


def _power(number: int, base: int) -> int:
    """The least power of base that is not less than number."""
    power = 1
    while power < number:
        power *= base
    return power
