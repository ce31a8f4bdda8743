"""The memory of one decode step, the same from step to step, so that a CUDA graph can hold what reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from windowkv_service.model.attention import LayerTables, SharedTable, repeat_rows


@dataclass(frozen=True)
class StackShape:
    """What a stack takes memory for: sequences, blocks per table, tail slots, and blocks that all tables share."""

    layers: tuple[int, ...]
    split: int | None
    num_sequences: int
    num_blocks: int
    capacity: int
    num_shared: int = 0

    def size_bytes(self, window_size: int) -> int:
        """Of its tables."""
        num_rows = self.num_sequences * (self.split or 1)
        per_row = self.num_blocks * (1 + window_size) + self.capacity + 1
        return 8 * (num_rows * per_row + self.num_shared * (1 + window_size))


@dataclass(frozen=True)
class Stack:
    """The tables of a batch for the layers that share them, padded to one width: R rows, sequence by sequence.

    split: the rows of one sequence where each KV head has its own; None: one for all its heads.
    block_table [R, NB]; key_positions [R, NB * window_size], -1 where a slot is empty; tail_slots [R, capacity], -1
    beyond a row's own; num_prefix_blocks [R], the blocks of each table before its tail. shared: blocks that come before
    all of them; None where they have none in common.
    """

    layers: tuple[int, ...]
    split: int | None
    block_table: Tensor
    key_positions: Tensor
    tail_slots: Tensor
    num_prefix_blocks: Tensor
    shared: SharedTable | None = None

    @property
    def shape(self) -> StackShape:
        num_rows, num_blocks = self.block_table.shape
        num_sequences = num_rows // (self.split or 1)
        num_shared = 0 if self.shared is None else self.shared.block_table.shape[0]
        return StackShape(
            self.layers, self.split, num_sequences, num_blocks, self.tail_slots.shape[1], num_shared
        )

    @classmethod
    def padding(cls, shape: StackShape, window_size: int, device: torch.device) -> Stack:
        """Rows that see nothing and write nothing."""
        num_rows = shape.num_sequences * (shape.split or 1)
        return cls(
            shape.layers,
            shape.split,
            torch.zeros(num_rows, shape.num_blocks, dtype=torch.long, device=device),
            torch.full((num_rows, shape.num_blocks * window_size), -1, device=device),
            torch.full((num_rows, shape.capacity), -1, device=device),
            torch.zeros(num_rows, dtype=torch.long, device=device),
            _no_blocks(shape.num_shared, window_size, device) if shape.num_shared else None,
        )

    def take(self, other: Stack) -> None:
        """Become the other, which is not larger, and padding where it has nothing."""
        _fill(self.block_table, other.block_table, 0)
        _fill(self.key_positions, other.key_positions, -1)
        _fill(self.tail_slots, other.tail_slots, -1)
        _fill(self.num_prefix_blocks, other.num_prefix_blocks, 0)
        if self.shared is not None and other.shared is not None:
            _fill(self.shared.block_table, other.shared.block_table, 0)
            _fill(self.shared.key_positions, other.shared.key_positions, -1)
            _fill(self.shared.num_filled, other.shared.num_filled, 0)

    def front(self, num_blocks: int, first: int, last: int) -> LayerTables:
        """For tail tokens first … last - 1, over so many blocks of the tables: all that hold something by then."""
        window_size = self.key_positions.shape[1] // self.block_table.shape[1]
        positions = self.key_positions[:, : num_blocks * window_size]
        slots = self.tail_slots[:, first:last]
        return LayerTables(self.block_table[:, :num_blocks], positions, slots, self.split is not None)

    def step(self, tail_lengths: Tensor) -> LayerTables:
        """For one new token per sequence, each the tail's tail_lengths[b]-th (from 0). Computed on the device alone."""
        window_size = self.key_positions.shape[1] // self.block_table.shape[1]
        lengths = repeat_rows(tail_lengths, self.split or 1)
        slots = self.tail_slots.gather(1, lengths[:, None])
        num_filled = (self.num_prefix_blocks + lengths // window_size + 1) * window_size
        return LayerTables(
            self.block_table, self.key_positions, slots, self.split is not None, num_filled, self.shared
        )

    def span(self, first: Tensor, last: Tensor, places: Tensor) -> LayerTables:
        """For the tail's tokens first … first + last, at places 0, 1, … of more: the KV of those beyond is not kept.
        first, last: [1]. Computed on the device alone."""
        window_size = self.key_positions.shape[1] // self.block_table.shape[1]
        wanted = (first + places).clamp(max=self.tail_slots.shape[1] - 1)
        slots = self.tail_slots.index_select(1, wanted).where(places <= last, -1)
        num_filled = (self.num_prefix_blocks + (first + last) // window_size + 1) * window_size
        return LayerTables(self.block_table, self.key_positions, slots, self.split is not None, num_filled)


def _no_blocks(num_blocks: int, window_size: int, device: torch.device) -> SharedTable:
    return SharedTable(
        torch.zeros(num_blocks, dtype=torch.long, device=device),
        torch.full((num_blocks * window_size,), -1, device=device),
        torch.zeros(1, dtype=torch.long, device=device),
    )


def _fill(mine: Tensor, theirs: Tensor, padding: int) -> None:
    mine.fill_(padding)
    mine[tuple(map(slice, theirs.shape))] = theirs


class StepBuffers:
    """Tables, and where each sequence stands: token_ids and positions [B, 1], tail_lengths [B]. The sequences beyond
    num_sequences are padding."""

    def __init__(self, shapes: Sequence[StackShape], window_size: int, device: torch.device) -> None:
        num_sequences = shapes[0].num_sequences
        self._stacks = [Stack.padding(shape, window_size, device) for shape in shapes]
        self.num_sequences = 0
        self.token_ids = torch.zeros(num_sequences, 1, dtype=torch.long, device=device)
        self.positions = torch.zeros(num_sequences, 1, dtype=torch.long, device=device)
        self._tail_lengths = torch.zeros(num_sequences, dtype=torch.long, device=device)

    def take(
        self, stacks: Sequence[Stack], token_ids: Tensor, positions: Tensor, tail_lengths: Tensor
    ) -> None:
        """Begin with another batch; token_ids, positions and tail_lengths are [num_sequences]."""
        self.num_sequences = token_ids.shape[0]
        for mine, theirs in zip(self._stacks, stacks, strict=True):
            mine.take(theirs)
        for buffer, values in (
            (self.token_ids[:, 0], token_ids),
            (self.positions[:, 0], positions),
            (self._tail_lengths, tail_lengths),
        ):
            buffer.zero_()
            buffer[: self.num_sequences] = values

    def feed(self, token_ids: Tensor) -> None:
        """token_ids [num_sequences] are what the next step runs, one place further on."""
        self.token_ids[: self.num_sequences, 0] = token_ids
        self.positions[: self.num_sequences] += 1
        self._tail_lengths[: self.num_sequences] += 1

    def tables(self) -> dict[int, LayerTables]:
        """By layer."""
        views: dict[int, LayerTables] = {}
        for stack in self._stacks:
            views.update(dict.fromkeys(stack.layers, stack.step(self._tail_lengths)))
        return views
