"""One sequence's block tables: the chosen blocks of its cached prompt, then its private tail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from windowkv_service.kv.layout import KVLayout
from windowkv_service.model.attention import GroupTables


@dataclass(frozen=True)
class GroupTable:
    """block_ids [NB] and key_positions [NB * window_size] of one layer group, prefix first; tail_slots [capacity]."""

    block_ids: Tensor
    key_positions: Tensor
    tail_slots: Tensor
    num_prefix_blocks: int


class BlockTables:
    """All groups' tables of one sequence. They never change: a tail slot is written before any query can see it, since
    its position is later than every query's until then."""

    def __init__(
        self,
        layout: KVLayout,
        windows: Sequence[Sequence[int]],
        block_ids: Sequence[Sequence[int]],
        tail_ids: Sequence[Sequence[int]],
        tail_start: int,
        device: torch.device,
    ) -> None:
        """windows, block_ids, tail_ids: one list per layer group. tail_start: the logical position of the tail's first
        token; what the prefix's blocks hold from there on (padding, or a token that is run again) stays unseen."""
        self.tail_start = tail_start
        self._window_size = layout.window_size
        self.groups = [
            self._group(windows[group.index], block_ids[group.index], tail_ids[group.index], device)
            for group in layout.groups
        ]

    def _group(
        self, windows: Sequence[int], block_ids: Sequence[int], tail_ids: Sequence[int], device: torch.device
    ) -> GroupTable:
        offsets = torch.arange(self._window_size)
        prefix = (torch.tensor(windows, dtype=torch.long)[:, None] * self._window_size + offsets).flatten()
        prefix = prefix.masked_fill(prefix >= self.tail_start, -1)
        tail = self.tail_start + torch.arange(len(tail_ids) * self._window_size)
        slots = (torch.tensor(tail_ids, dtype=torch.long)[:, None] * self._window_size + offsets).flatten()
        return GroupTable(
            torch.tensor([*block_ids, *tail_ids], dtype=torch.long, device=device),
            torch.cat([prefix, tail]).to(device),
            slots.to(device),
            len(windows),
        )

    def num_blocks(self, group: int, num_tail_tokens: int) -> int:
        """Blocks of the group's table that hold something once the tail has num_tail_tokens."""
        return self.groups[group].num_prefix_blocks + -(-num_tail_tokens // self._window_size)

    def rows(self, first: int, last: int) -> dict[int, GroupTables]:
        """The tables as a batch of one, for running tail tokens first … last - 1."""
        views = {}
        for index, table in enumerate(self.groups):
            used = self.num_blocks(index, last)
            views[index] = GroupTables(
                table.block_ids[None, :used],
                table.key_positions[None, : used * self._window_size],
                table.tail_slots[None, first:last],
            )
        return views


class BatchTables:
    """The tables of several sequences, padded into one set; made when the batch changes."""

    def __init__(self, sequences: Sequence[BlockTables], window_size: int) -> None:
        self._sequences = sequences
        self._window_size = window_size
        num_groups = range(len(sequences[0].groups))
        pad = torch.nn.utils.rnn.pad_sequence
        self._block_ids = [
            pad([s.groups[g].block_ids for s in sequences], batch_first=True) for g in num_groups
        ]
        self._positions = [
            pad([s.groups[g].key_positions for s in sequences], batch_first=True, padding_value=-1)
            for g in num_groups
        ]
        self._slots = [pad([s.groups[g].tail_slots for s in sequences], batch_first=True) for g in num_groups]

    def step(self, tail_lengths: Sequence[int]) -> Mapping[int, GroupTables]:
        """For one new token per sequence, each the tail's tail_lengths[b]-th (from 0)."""
        device = self._slots[0].device
        columns = torch.tensor(tail_lengths, device=device)[:, None]
        views = {}
        for group, slots in enumerate(self._slots):
            used = max(
                s.num_blocks(group, length + 1)
                for s, length in zip(self._sequences, tail_lengths, strict=True)
            )
            views[group] = GroupTables(
                self._block_ids[group][:, :used],
                self._positions[group][:, : used * self._window_size],
                slots.gather(1, columns),
            )
        return views
