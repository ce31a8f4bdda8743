"""What a choice captured, and the fewest windows that capture enough."""

from __future__ import annotations

from itertools import combinations
from operator import itemgetter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from observed_prompts import ObservedPrompt, block_bytes_of, make_layout

from windowkv_service.domain.requests import Task
from windowkv_service.selection import Full, Leader, QuestionProfile, WindowKV, choose_windows, widen
from windowkv_service.selection.fidelity import captured_mass, measured

LAYOUT = make_layout(4, window_size=8, group_size=1)
LEADERS = (Leader(1, (0, 1, 2)), Leader(3, (3,)))  # one speaks for three layers, the other for one


def masses_of(*rows: list[float]) -> dict[int, torch.Tensor]:
    return {leader.layer: torch.tensor(row) / sum(row) for leader, row in zip(LEADERS, rows, strict=True)}


def chosen(masses: dict[int, torch.Tensor], first: tuple[int, ...], second: tuple[int, ...]):
    return measured(LAYOUT, LEADERS, masses, (first,) * 3 + (second,), Task.LOCALIZATION)


def test_fidelity_is_the_attention_of_every_voter_and_head_in_the_windows_by_layers_led():
    """Against softmax over all keys, voter by voter and head by head."""
    prompt = ObservedPrompt(LAYOUT, 100, seed=5)
    profile = QuestionProfile(LEADERS, vote_tokens=3, keep_first=False, keep_last_windows=0)
    scores = {
        layer: profile.score(prompt.queries[layer], prompt.keys[layer], window_size=8, scale=0.3)
        for layer in profile.layers
    }
    budget = 4 * 4 * LAYOUT.block_bytes(LAYOUT.groups[0])
    got = choose_windows(scores, profile, LAYOUT, 100, budget)
    expected = 0.0
    for leader in LEADERS:
        shares = []
        for head in range(prompt.queries[leader.layer].shape[0]):
            for voter in range(97, 100):
                keys = prompt.keys[leader.layer][:, head // 2]
                weights = (keys @ prompt.queries[leader.layer][head, voter] * 0.3).softmax(0)
                windows = got.windows[leader.groups[0]]
                shares.append(sum(float(weights[w * 8 : w * 8 + 8].sum()) for w in windows))
        expected += len(leader.groups) / 4 * sum(shares) / len(shares)
    assert got.fidelity == pytest.approx(expected, abs=1e-5)


def test_windows_are_added_where_the_most_attention_is_left():
    masses = masses_of([5, 1, 2, 0, 0, 2], [1, 1, 1, 5, 1, 1])
    narrow = chosen(masses, (0,), (0,))
    assert narrow.fidelity == pytest.approx(0.75 * 0.5 + 0.25 * 0.1)
    assert widen(narrow, LAYOUT, 0.5).windows == ((0,),) * 3 + ((0, 3),)  # half of one layer's attention
    assert widen(narrow, LAYOUT, 0.6).windows == ((0, 2),) * 3 + ((0, 3),)
    assert widen(narrow, LAYOUT, 0.6).fidelity == pytest.approx(0.75 * 0.7 + 0.25 * 0.6)


def test_enough_is_left_as_it_is():
    selection = chosen(masses_of([5, 1, 2, 0, 0, 2], [1, 1, 1, 5, 1, 1]), (0, 2), (3,))
    assert widen(selection, LAYOUT, None) is selection
    assert widen(selection, LAYOUT, selection.fidelity) is selection


def test_one_takes_all_even_where_nobody_looks():
    selection = chosen(masses_of([5, 1, 2, 0, 0, 2], [1, 0, 0, 0, 0, 0]), (0,), (0,))
    wide = widen(selection, LAYOUT, 1.0)
    assert wide.windows == (tuple(range(6)),) * 4
    assert wide.fidelity == 1.0


def test_what_drops_nothing_has_nothing_to_widen():
    got = Full().select(ObservedPrompt(LAYOUT, 60).observation(16), budget_bytes=0, task=Task.AUTO)
    assert widen(got, LAYOUT, 1.0) is got


def test_sliding_groups_keep_what_they_have():
    layout = make_layout(3, window_size=8, sliding={1: 16})
    prompt = ObservedPrompt(layout, 96)
    got = WindowKV().select(prompt.observation(32), budget_bytes=0, task=Task.LOCALIZATION)
    wide = widen(got, layout, 1.0)
    for group in layout.groups:
        assert wide.windows[group.index] == tuple(layout.full_windows(group, 96))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.tuples(*[st.lists(st.floats(0.01, 1.0), min_size=5, max_size=5)] * 2),
    min_fidelity=st.floats(0.05, 0.999),
    first=st.sets(st.integers(0, 4), min_size=1),
    second=st.sets(st.integers(0, 4), min_size=1),
)
def test_no_fewer_bytes_would_do(rows, min_fidelity, first, second):
    masses = masses_of(*rows)
    narrow = chosen(masses, tuple(sorted(first)), tuple(sorted(second)))
    wide = widen(narrow, LAYOUT, min_fidelity)
    assert wide.fidelity >= min_fidelity or wide.windows == (tuple(range(5)),) * 4
    assert wide.fidelity == captured_mass(LAYOUT, LEADERS, masses, wide.windows)
    for before, after in zip(narrow.windows, wide.windows, strict=True):
        assert set(before) <= set(after)
        assert list(after) == sorted(after)
    if wide is narrow:
        return
    added = [
        set(wide.windows[leader.groups[0]]) - set(narrow.windows[leader.groups[0]]) for leader in LEADERS
    ]
    mass, leader, window = min(
        (
            (float(masses[leader.layer][window]), leader, window)
            for leader, windows in zip(LEADERS, added, strict=True)
            for window in windows
        ),
        key=itemgetter(0),
    )
    assert mass > 0
    without = [
        tuple(w for w in windows if group not in leader.groups or w != window)
        for group, windows in enumerate(wide.windows)
    ]
    assert captured_mass(LAYOUT, LEADERS, masses, without) < min_fidelity, "one window less would have done"


def test_one_leader_needs_the_fewest_windows_there_are():
    """Against every set of windows."""
    layout = make_layout(1, window_size=8)
    leader = Leader(0, (0,))
    for seed in range(10):
        mass = torch.rand(7, generator=torch.Generator().manual_seed(seed))
        mass /= mass.sum()
        narrow = measured(layout, [leader], {0: mass}, ((2,),), Task.LOCALIZATION)
        for percent in range(20, 100, 10):
            wide = widen(narrow, layout, percent / 100)
            fewest = next(
                size
                for size in range(7)
                for others in combinations([0, 1, 3, 4, 5, 6], size)
                if float(mass[[2, *others]].double().sum()) >= percent / 100
            )
            assert len(wide.windows[0]) == 1 + fewest
            assert block_bytes_of(layout, wide.windows) == (1 + fewest) * layout.block_bytes(layout.groups[0])
