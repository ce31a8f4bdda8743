"""How layers become groups and tokens become windows, for every kind of model that is served."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windowkv_service.kv.layout import KVLayout


def plan(owners: list[int], sliding: list[int | None], group_size: int = 2, window_size: int = 4) -> KVLayout:
    return KVLayout.plan(
        owners,
        sliding,
        group_size=group_size,
        window_size=window_size,
        num_kv_heads=2,
        head_dim=3,
        itemsize=4,
    )


def layers_of(layout: KVLayout) -> list[tuple[int, ...]]:
    return [group.layers for group in layout.groups]


def test_consecutive_layers_form_groups_of_the_chosen_size() -> None:
    assert layers_of(plan(list(range(6)), [None] * 6)) == [(0, 1), (2, 3), (4, 5)]


def test_layers_left_over_form_a_smaller_last_group() -> None:
    layout = plan(list(range(7)), [None] * 7, group_size=3)
    assert layers_of(layout) == [(0, 1, 2), (3, 4, 5), (6,)]
    assert [layout.block_bytes(group) for group in layout.groups] == [576, 576, 192]


def test_sliding_layers_have_groups_of_their_own_for_each_window_length() -> None:
    layout = plan(list(range(6)), [8, None, 8, None, 16, 8])
    assert {(group.layers, group.sliding_window) for group in layout.groups} == {
        ((0, 2), 8),
        ((5,), 8),
        ((1, 3), None),
        ((4,), 16),
    }
    assert [group.layers for group in layout.selectable_groups] == [(1, 3)]
    assert [group.index for group in layout.groups] == list(range(4))


def test_a_layer_that_reads_another_layers_kv_joins_no_group_and_finds_its_owners_place() -> None:
    layout = plan([0, 1, 2, 3, 2, 3], [None] * 6)
    assert layers_of(layout) == [(0, 1), (2, 3)]
    assert layout.places[4] == layout.places[2] == (1, 0)
    assert layout.places[5] == layout.places[3] == (1, 1)


def test_a_kv_that_layers_share_is_counted_once() -> None:
    alone, shared = plan([0, 1, 2, 3], [None] * 4), plan([0, 1, 0, 1], [None] * 4)
    assert alone.bytes_per_token == 4 * 2 * 2 * 3 * 4
    assert shared.bytes_per_token == alone.bytes_per_token // 2
    assert shared.full_bytes(10) == 10 * shared.bytes_per_token


def test_grouped_queries_are_stored_on_the_heads_that_own_the_kv() -> None:
    layout = plan([0, 1], [None, None])
    assert layout.block_shape(layout.groups[0]) == (2, 2, 4, 2, 3)
    assert layout.block_bytes(layout.groups[0]) == 2 * 2 * 4 * 2 * 3 * 4


@pytest.mark.parametrize(("num_tokens", "num_windows"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_a_ragged_last_window_is_a_window(num_tokens: int, num_windows: int) -> None:
    layout = plan([0], [None])
    assert layout.num_windows(num_tokens) == num_windows
    assert layout.full_windows(layout.groups[0], num_tokens) == range(num_windows)


@given(st.integers(1, 100), st.integers(1, 30), st.integers(1, 9))
def test_a_sliding_group_keeps_every_window_that_a_later_token_can_still_see(
    num_tokens: int, sliding_window: int, window_size: int
) -> None:
    """Also a token that continues at the end of the last whole window, as a longer prompt does."""
    layout = plan([0], [sliding_window], window_size=window_size)
    kept = layout.full_windows(layout.groups[0], num_tokens)
    assert kept.stop == layout.num_windows(num_tokens)
    continues_at = num_tokens // window_size * window_size
    for position in (continues_at, num_tokens):
        sees_from = max(0, position - sliding_window + 1)
        for seen in range(sees_from, num_tokens):
            assert seen // window_size in kept
    assert len(kept) <= layout.reach(layout.groups[0]) + 1


@given(st.integers(1, 24), st.integers(1, 9))
def test_every_owning_layer_is_in_exactly_one_group(num_layers: int, group_size: int) -> None:
    layout = plan(list(range(num_layers)), [None] * num_layers, group_size=group_size)
    assert sorted(layer for group in layout.groups for layer in group.layers) == list(range(num_layers))
    assert all(len(group.layers) <= group_size for group in layout.groups)
    for layer, (group, place) in layout.places.items():
        assert layout.groups[group].layers[place] == layer
