"""One sequence's block tables: the chosen blocks of its cached prompt, then its private tail."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from windowkv_service.kv.layout import KVGroup, KVLayout
from windowkv_service.kv.sending import on_device
from windowkv_service.kv.strips import Strips
from windowkv_service.model.attention import LayerTables, SharedTable
from windowkv_service.model.step_buffers import Stack


@dataclass(frozen=True)
class Row:
    """On the host: block_ids [NB] and key_positions [NB * window_size] of one table, prefix first; tail_slots
    [capacity]. prefix_ids: the first of block_ids; of those in whole_ids every slot is seen."""

    block_ids: Tensor
    key_positions: Tensor
    tail_slots: Tensor
    prefix_ids: tuple[int, ...]
    whole_ids: frozenset[int]

    @property
    def num_prefix_blocks(self) -> int:
        return len(self.prefix_ids)

    def without(self, block_ids: frozenset[int]) -> Row:
        """Less these blocks of the prefix."""
        stays = [place for place, block_id in enumerate(self.prefix_ids) if block_id not in block_ids]
        places = torch.tensor([*stays, *range(len(self.prefix_ids), len(self.block_ids))], dtype=torch.long)
        return Row(
            self.block_ids[places],
            self.key_positions.view(len(self.block_ids), -1)[places].flatten(),
            self.tail_slots,
            tuple(self.prefix_ids[place] for place in stays),
            self.whole_ids - block_ids,
        )

    def only(self, block_ids: frozenset[int], device: torch.device) -> SharedTable:
        """These blocks of the prefix alone, for all who have them; on the device."""
        stays = [place for place, block_id in enumerate(self.prefix_ids) if block_id in block_ids]
        places = torch.tensor(stays, dtype=torch.long)
        positions = self.key_positions.view(len(self.block_ids), -1)[places].flatten()
        numbers = (self.block_ids[places], positions, [len(positions)])
        return SharedTable(*(on_device(each, device) for each in numbers))


@dataclass(frozen=True)
class LayerRows:
    """What layers find their KV by: one row for all their KV heads, or, for a single layer, one for each of them."""

    layers: tuple[int, ...]
    rows: tuple[Row, ...]
    is_split: bool


class BlockTables:
    """All tables of one sequence. They never change: a tail slot is written before any query can see it, since its
    position is later than every query's until then."""

    def __init__(
        self,
        layout: KVLayout,
        windows: Sequence[Sequence[int]],
        block_ids: Sequence[Sequence[int]],
        tail_ids: Sequence[Sequence[int]],
        tail_start: int,
        device: torch.device,
        strips: Strips | None = None,
    ) -> None:
        """windows, block_ids, tail_ids: one list per layer group. tail_start: the logical position of the tail's first
        token; what the prefix's blocks hold from there on (padding, or a token that is run again) stays unseen.
        strips: what is in the blocks of groups that keep single tokens."""
        self.tail_start = tail_start
        self._layout = layout
        self.device = device
        self.layers: list[LayerRows] = []
        for group in layout.groups:
            tail = tail_ids[group.index]
            if strips is not None and group in strips:
                self.layers += self._split(group, strips, block_ids[strips.home(group).index], tail)
            else:
                positions = self._window_positions(windows[group.index])
                row = self._row(positions, block_ids[group.index], tail)
                self.layers.append(LayerRows(group.layers, (row,), is_split=False))

    @property
    def split_layers(self) -> frozenset[int]:
        """Those whose KV heads have rows of their own; sequences that differ in them share no batch."""
        return frozenset(layer for each in self.layers if each.is_split for layer in each.layers)

    def _split(
        self, group: KVGroup, strips: Strips, block_ids: Sequence[int], tail_ids: Sequence[int]
    ) -> Iterator[LayerRows]:
        """A block counts for as many strips as the group has lanes; a tail block has one strip for each."""
        lanes, heads = self._layout.num_lanes(group), self._layout.num_kv_heads
        strip_ids = [block_id * lanes + place for block_id in block_ids for place in range(lanes)]
        rows = [
            self._row(
                positions,
                strip_ids[own.start : own.stop],
                [block_id * lanes + lane for block_id in tail_ids],
            )
            for lane, (own, positions) in enumerate(
                zip(strips.numbers(group), strips.positions(group), strict=True)
            )
        ]
        for place, layer in enumerate(group.layers):
            yield LayerRows((layer,), tuple(rows[place * heads : (place + 1) * heads]), is_split=True)

    def _window_positions(self, windows: Sequence[int]) -> Tensor:
        offsets = torch.arange(self._layout.window_size)
        return (
            torch.tensor(windows, dtype=torch.long)[:, None] * self._layout.window_size + offsets
        ).flatten()

    def _row(self, positions: Tensor, block_ids: Sequence[int], tail_ids: Sequence[int]) -> Row:
        size = self._layout.window_size
        prefix = positions.masked_fill(positions >= self.tail_start, -1)
        tail = self.tail_start + torch.arange(len(tail_ids) * size)
        slots = (torch.tensor(tail_ids, dtype=torch.long)[:, None] * size + torch.arange(size)).flatten()
        return Row(
            torch.tensor([*block_ids, *tail_ids], dtype=torch.long),
            torch.cat([prefix, tail]),
            slots,
            tuple(block_ids),
            frozenset(itertools.compress(block_ids, (prefix.view(-1, size) >= 0).all(1).tolist())),
        )

    def rows(self, first: int, last: int) -> dict[int, LayerTables]:
        """The tables as a batch of one, for running tail tokens first … last - 1, by layer."""
        views: dict[int, LayerTables] = {}
        for each, stack in zip(self.layers, self.alone, strict=True):
            longest = max(row.num_prefix_blocks for row in each.rows)
            view = stack.front(longest - (-last // self._layout.window_size), first, last)
            views.update(dict.fromkeys(each.layers, view))
        return views

    @cached_property
    def alone(self) -> list[Stack]:
        """As a batch of one."""
        return stack_up([self])


def stack_up(sequences: Sequence[BlockTables], min_shared: int | None = None) -> list[Stack]:
    """The tables of several sequences that are split alike, padded to one width, on the device: a stack for layers that
    share them. Blocks that are in all tables, at least min_shared of them, stand apart; None: they never do."""
    device = sequences[0].device
    return [
        _stack(parts, min_shared, device) for parts in zip(*(each.layers for each in sequences), strict=True)
    ]


def _stack(parts: Sequence[LayerRows], min_shared: int | None, device: torch.device) -> Stack:
    rows, shared = [row for part in parts for row in part.rows], None
    if min_shared is not None and len(parts) > 1 and not parts[0].is_split:
        common = _common(rows, min_shared)
        if common:
            shared, rows = rows[0].only(common, device), [row.without(common) for row in rows]
    padded = [
        pad_sequence([row.block_ids for row in rows], batch_first=True),
        pad_sequence([row.key_positions for row in rows], batch_first=True, padding_value=-1),
        pad_sequence([row.tail_slots for row in rows], batch_first=True, padding_value=-1),
    ]
    block_table, key_positions, tail_slots = (on_device(each, device) for each in padded)
    return Stack(
        parts[0].layers,
        len(parts[0].rows) if parts[0].is_split else None,
        block_table,
        key_positions,
        tail_slots,
        on_device([row.num_prefix_blocks for row in rows], device),
        shared,
    )


def _common(rows: Sequence[Row], at_least: int) -> frozenset[int]:
    """Blocks that all rows have and see whole; none where they are too few."""
    common = rows[0].whole_ids
    for row in rows[1:]:
        common &= row.whole_ids
        if len(common) < at_least:
            return frozenset()
    return common
