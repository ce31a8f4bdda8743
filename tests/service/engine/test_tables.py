"""Block tables say where each token's KV lies and at which position; an independent count says the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windowkv_service.engine.tables import BatchTables, BlockTables
from windowkv_service.kv.layout import KVLayout

WINDOW = 4
CPU = torch.device("cpu")


def layout(num_groups: int = 2) -> KVLayout:
    return KVLayout.plan(
        range(num_groups),
        [None] * num_groups,
        group_size=1,
        window_size=WINDOW,
        num_kv_heads=1,
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
    assert made.num_blocks(0, num_tail_tokens) == num_blocks
    if num_tail_tokens:
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
    together = BatchTables(made, WINDOW).step(lengths)
    for number, (one, length) in enumerate(zip(made, lengths, strict=True)):
        for group, alone in one.rows(length, length + 1).items():
            width = alone.block_table.shape[1]
            batch = together[group]
            assert batch.block_table[number, :width].tolist() == alone.block_table[0].tolist()
            positions = batch.key_positions[number].tolist()
            assert positions[: width * WINDOW] == alone.key_positions[0].tolist()
            beyond = positions[width * WINDOW :]
            assert all(position == -1 or position > one.tail_start + length for position in beyond)
            assert batch.slots[number].tolist() == alone.slots[0].tolist()
