"""What every selector promises, on every kind of layout, length and budget."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observed_prompts import ObservedPrompt, block_bytes_of, make_layout

import windowkv_kernels as kernels
from windowkv_service.domain.requests import Task
from windowkv_service.selection import Leader, WindowKV, default_profile, selectors
from windowkv_service.selection.choice import last_windows, num_fitting

NAMES = ["windowkv", "windowkv-published", "full", "random", "streamingllm", "quest"]
LAYOUTS = {
    "plain": {},
    "ragged": {"num_layers": 7, "group_size": 3},
    "sliding": {"num_layers": 6, "group_size": 2, "sliding": {0: 24, 1: 24, 4: 24}},
    "all sliding but one": {"num_layers": 3, "sliding": {0: 16, 1: 16}},
    "shared": {"num_layers": 6, "group_size": 2, "readers": {3: 1, 4: 1, 5: 2}},
    "one head": {"num_kv_heads": 1, "itemsize": 2},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(
    num_tokens=st.sampled_from([1, 7, 8, 9]) | st.integers(1, 130),
    kept_ratio=st.floats(0.01, 1.0),
    task=st.sampled_from(Task),
    heads_per_kv=st.sampled_from([1, 2, 4, 8]),
    head_dim=st.sampled_from([2, 8, 64]),
)
def test_a_choice_keeps_its_promises(layout, name, num_tokens, kept_ratio, task, heads_per_kv, head_dim):
    layout = make_layout(**LAYOUTS[layout], head_dim=head_dim)
    selector = selectors(default_profile(layout))[name]
    prompt = ObservedPrompt(layout, num_tokens, heads_per_kv=heads_per_kv)
    budget_bytes = int(kept_ratio * layout.full_bytes(num_tokens))
    observation = prompt.observation(selector.observation_size)
    got = selector.select(observation, budget_bytes=budget_bytes, task=task)
    gives_way = isinstance(selector, WindowKV)
    leaders = [Leader(group.layers[0], (group.index,)) for group in layout.selectable_groups]

    assert len(got.windows) == len(layout.groups)
    for group, windows in zip(layout.groups, got.windows, strict=True):
        assert list(windows) == sorted(set(windows))
        if not gives_way or num_fitting(layout, num_tokens, leaders, budget_bytes) >= 2:
            assert windows[-1] == layout.num_windows(num_tokens) - 1  # the last tokens stay
        assert windows[0] >= 0
        if not group.is_selectable or name == "full":
            assert windows == tuple(layout.full_windows(group, num_tokens))
    assert 0.0 <= got.fidelity <= 1.0
    assert set(selector.observed_layers(layout)) <= {
        layer for g in layout.selectable_groups for layer in g.layers
    }

    if name != "full":
        forced = 1 if gives_way else 1 + len(last_windows(layout, num_tokens, selector.observation_size))
        least = [
            min(forced, layout.num_windows(num_tokens)) if group.is_selectable else len(windows)
            for group, windows in zip(layout.groups, got.windows, strict=True)
        ]
        least_bytes = sum(n * layout.block_bytes(g) for n, g in zip(least, layout.groups, strict=True))
        assert block_bytes_of(layout, got.windows) <= max(budget_bytes, least_bytes)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_prompt_is_chosen_for_alike(name):
    layout = make_layout()
    first, second = (
        selectors(default_profile(layout))[name].select(
            ObservedPrompt(layout, 200).observation(32),
            budget_bytes=layout.full_bytes(200) // 5,
            task=Task.AUTO,
        )
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("name", ["windowkv", "random", "streamingllm", "quest"])
@pytest.mark.parametrize("kept_ratio", [0.12, 0.5, 0.9])
def test_little_of_the_budget_is_left_unused(name, kept_ratio):
    layout = make_layout(4, group_size=1)
    budget_bytes = int(kept_ratio * layout.full_bytes(400))
    got = selectors(default_profile(layout))[name].select(
        ObservedPrompt(layout, 400).observation(32), budget_bytes=budget_bytes, task=Task.LOCALIZATION
    )
    largest = 4 * layout.block_bytes(layout.groups[0])  # a leader of four layers takes four blocks per window
    assert block_bytes_of(layout, got.windows) > budget_bytes - largest


@pytest.mark.parametrize(
    ("num_fitting", "kept"),
    [
        (8, {0, 10, 11, 12}),
        (7, {10, 11, 12}),
        (4, {10, 11, 12}),
        (3, {11, 12}),
        (2, {12}),
        (1, set()),
        (0, set()),
    ],
)
def test_the_last_tokens_windows_leave_one_to_the_score_and_the_first_leaves_half(num_fitting, kept):
    layout = make_layout(4, window_size=8)  # tokens 84 … 99 lie in windows 10 to 12
    prompt = ObservedPrompt(layout, 100)
    queries = prompt.queries[0][:, -16:]
    scores = kernels.score_windows(queries, prompt.keys[0], window_size=8, scale=prompt.scales[0]).score
    budget_bytes = num_fitting * 4 * layout.block_bytes(layout.groups[0])
    selector = WindowKV(mean_tokens=16, leaders=(Leader(0, (0, 1, 2, 3)),))
    got = selector.select(prompt.observation(32), budget_bytes=budget_bytes, task=Task.LOCALIZATION)
    best = [window for window in scores.argsort(descending=True).tolist() if window not in kept]
    assert set(got.windows) == {tuple(sorted([*kept, *best[: max(1, num_fitting) - len(kept)]]))}


def test_streaming_keeps_the_first_and_the_most_recent():
    layout = make_layout(2)
    got = selectors(default_profile(layout))["streamingllm"].select(
        ObservedPrompt(layout, 160).observation(16),
        budget_bytes=2 * 6 * layout.block_bytes(layout.groups[0]),
        task=Task.AUTO,
    )
    assert set(got.windows) == {(0, 15, 16, 17, 18, 19)}


def test_more_budget_never_captures_less():
    layout = make_layout(4)
    prompt = ObservedPrompt(layout, 300)
    fidelities = [
        WindowKV()
        .select(
            prompt.observation(32),
            budget_bytes=layout.full_bytes(300) * percent // 100,
            task=Task.LOCALIZATION,
        )
        .fidelity
        for percent in range(5, 105, 5)
    ]
    assert fidelities == sorted(fidelities)
