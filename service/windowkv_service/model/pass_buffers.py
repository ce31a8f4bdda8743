"""The memory of a pass over several new tokens of one sequence, the same from pass to pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from windowkv_service.kv.sending import on_device
from windowkv_service.model.attention import LayerTables
from windowkv_service.model.step_buffers import Stack, StackShape


class PassBuffers:
    """token_ids and positions [1, length], of which the first are taken and the others padding; last [1]: the place of
    the last that is taken."""

    def __init__(
        self, shapes: Sequence[StackShape], length: int, window_size: int, device: torch.device
    ) -> None:
        self._stacks = [Stack.padding(shape, window_size, device) for shape in shapes]
        self.token_ids = torch.zeros(1, length, dtype=torch.long, device=device)
        self.positions = torch.zeros(1, length, dtype=torch.long, device=device)
        self.last = torch.full((1,), -1, device=device)
        self._first = torch.zeros(1, dtype=torch.long, device=device)
        self._places = torch.arange(length, device=device)

    def take(self, stacks: Sequence[Stack], first: int, token_ids: Tensor, positions: Tensor) -> None:
        """Another pass: token_ids and positions [1, m], of the tail's tokens from the first-th on."""
        length = token_ids.shape[1]
        for mine, theirs in zip(self._stacks, stacks, strict=True):
            mine.take(theirs)
        for buffer, values in ((self.token_ids, token_ids), (self.positions, positions)):
            buffer.zero_()
            buffer[:, :length] = values
        numbers = on_device([first, length - 1], self._first.device)
        self._first.copy_(numbers[:1])
        self.last.copy_(numbers[1:])

    def tables(self) -> dict[int, LayerTables]:
        """By layer."""
        views: dict[int, LayerTables] = {}
        for stack in self._stacks:
            views.update(dict.fromkeys(stack.layers, stack.span(self._first, self.last, self._places)))
        return views
