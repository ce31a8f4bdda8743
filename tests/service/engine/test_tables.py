"""Block tables say where each token's KV lies and at which position; an independent count says the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windowkv_service.engine.tables import BlockTables, stack_up
from windowkv_service.kv.layout import KVLayout
from windowkv_service.kv.strips import Strips
from windowkv_service.model.attention import LayerTables

WINDOW = 4
CPU = torch.device("cpu")


def layout(num_groups: int = 2, group_size: int = 1, num_kv_heads: int = 1) -> KVLayout:
    num_layers = num_groups * group_size
    return KVLayout.plan(
        range(num_layers),
        [None] * num_layers,
        group_size=group_size,
        window_size=WINDOW,
        num_kv_heads=num_kv_heads,
        head_dim=2,
        itemsize=4,
    )


def tables(
    windows: Sequence[Sequence[int]], tail_start: int, num_tail_blocks: int = 2, first_id: int = 0
) -> BlockTables:
    """Block ids count up: the prefix's of each group first, then its tail's."""
    ids = iter(range(first_id, 10_000))
    block_ids = [[next(ids) for _ in row] for row in windows]
    tail_ids = [[next(ids) for _ in range(num_tail_blocks)] for _ in windows]
    return BlockTables(layout(len(windows)), windows, block_ids, tail_ids, tail_start, CPU)


def step(made: Sequence[BlockTables], tail_lengths: Sequence[int]) -> dict[int, LayerTables]:
    """By layer, for one more token of each."""
    lengths = torch.tensor(tail_lengths)
    return {layer: stack.step(lengths) for stack in stack_up(made) for layer in stack.layers}


def test_prefix_blocks_hold_the_positions_of_their_windows() -> None:
    made = tables([[0, 2], [1]], tail_start=12)
    rows = made.rows(0, 1)
    assert rows[0].block_table.tolist() == [[0, 1, 3]]
    assert rows[0].key_positions.tolist() == [[0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15]]
    assert rows[1].key_positions.tolist() == [[4, 5, 6, 7, 12, 13, 14, 15]]


def test_what_a_ragged_last_window_does_not_hold_is_unseen() -> None:
    made = tables([[0, 1], [0, 1]], tail_start=6)
    assert made.rows(0, 1)[0].key_positions.tolist() == [[0, 1, 2, 3, 4, 5, -1, -1, 6, 7, 8, 9]]


def test_a_token_that_is_run_again_is_seen_once() -> None:
    """Without new input the prompt's last token runs again: its position is the tail's first."""
    made = tables([[0, 1], [0, 1]], tail_start=7)
    positions = made.rows(0, 1)[0].key_positions[0].tolist()
    assert positions.count(7) == 1
    assert positions.index(7) >= 2 * WINDOW


def test_slots_of_the_tail_count_through_its_blocks() -> None:
    made = tables([[0, 2], [1]], tail_start=12, num_tail_blocks=3)
    first_block = 3  # ids 0, 1 and 2 are the prefix's
    assert made.rows(0, 5)[0].slots.tolist() == [[first_block * WINDOW + n for n in range(5)]]
    assert made.rows(5, 7)[0].slots.tolist() == [[first_block * WINDOW + n for n in (5, 6)]]


@pytest.mark.parametrize(("num_tail_tokens", "num_blocks"), [(0, 2), (1, 3), (4, 3), (5, 4), (8, 4)])
def test_only_blocks_that_hold_something_are_shown(num_tail_tokens: int, num_blocks: int) -> None:
    made = tables([[0, 1], [0, 1]], tail_start=8)
    assert made.rows(0, num_tail_tokens)[0].block_table.shape == (1, num_blocks)


@st.composite
def sequences(draw: st.DrawFn) -> tuple[list[list[int]], int, int]:
    """(windows of two groups, tail start, tokens in the tail)."""
    tail_start = draw(st.integers(1, 30))
    num_windows = -(-tail_start // WINDOW)
    rows = [sorted(draw(st.sets(st.integers(0, num_windows - 1), min_size=1))) for _ in range(2)]
    return rows, tail_start, draw(st.integers(0, 2 * WINDOW - 1))


@settings(deadline=None)
@given(st.lists(sequences(), min_size=1, max_size=4))
def test_a_batch_shows_each_sequence_what_it_would_see_alone(
    drawn: list[tuple[list[list[int]], int, int]],
) -> None:
    made = [
        tables(windows, tail_start, first_id=100 * number)
        for number, (windows, tail_start, _) in enumerate(drawn)
    ]
    lengths = [length for _, _, length in drawn]
    together = step(made, lengths)
    for number, (one, length) in enumerate(zip(made, lengths, strict=True)):
        for group, alone in one.rows(length, length + 1).items():
            width = alone.block_table.shape[1]
            batch = together[group]
            assert batch.block_table[number, :width].tolist() == alone.block_table[0].tolist()
            positions = batch.key_positions[number].tolist()
            assert positions[: width * WINDOW] == alone.key_positions[0].tolist()
            beyond = positions[width * WINDOW :]
            assert all(position == -1 or position > one.tail_start + length for position in beyond)
            assert batch.num_filled is not None
            assert batch.num_filled[number] == width * WINDOW
            assert batch.slots[number].tolist() == alone.slots[0].tolist()


def test_each_head_of_a_split_layer_has_a_row_of_its_strips_and_its_part_of_the_tail() -> None:
    """One group of two layers and two heads: a block is four strips."""
    chosen = {(0, 0): [1, 3, 4, 7, 8], (0, 1): [0], (1, 0): [2, 9], (1, 1): list(range(9))}
    strips = Strips.of(layout(1, 2, 2), {lane: torch.tensor(kept) for lane, kept in chosen.items()}, "method")
    made = BlockTables(strips.layout, [[0, 1]], [[5, 2]], [[7]], 10, CPU, strips)
    rows = made.rows(0, 2)
    assert made.split_layers == {0, 1}
    assert [row[:3] for row in rows[0].block_table.tolist()] == [[20, 21, 28], [22, 29, 0]]
    assert rows[0].key_positions.tolist() == [
        [1, 3, 4, 7, 8, -1, -1, -1, 10, 11, 12, 13],
        [0, -1, -1, -1, 10, 11, 12, 13, -1, -1, -1, -1],
    ]
    assert rows[1].block_table.tolist() == [[23, 30, 0, 0], [8, 9, 10, 31]]
    assert rows[1].key_positions[1].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, -1, -1, -1, 10, 11, 12, 13]
    assert [rows[layer].slots.tolist() for layer in (0, 1)] == [
        [[28 * WINDOW, 28 * WINDOW + 1], [29 * WINDOW, 29 * WINDOW + 1]],
        [[30 * WINDOW, 30 * WINDOW + 1], [31 * WINDOW, 31 * WINDOW + 1]],
    ]
    together = step([made, made], [1, 3])
    assert together[0].num_filled is not None
    assert together[0].num_filled.tolist() == [12, 8, 12, 8]
    width = rows[0].block_table.shape[1]
    assert together[0].block_table[:, :width].tolist() == rows[0].block_table.tolist() * 2
    assert together[1].slots.flatten().tolist() == [
        30 * WINDOW + 1,
        31 * WINDOW + 1,
        30 * WINDOW + 3,
        31 * WINDOW + 3,
    ]


def test_a_token_that_is_run_again_is_seen_once_by_a_split_layer_too() -> None:
    strips = Strips.of(layout(1, 1, 1), {(0, 0): torch.tensor([2, 6, 7])}, "method")
    made = BlockTables(strips.layout, [[0]], [[3]], [[1]], 7, CPU, strips)
    assert made.rows(0, 1)[0].key_positions.tolist() == [[2, 6, -1, -1, 7, 8, 9, 10]]
