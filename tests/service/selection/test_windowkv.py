"""WindowKV against a slow oracle written from the paper's formulas (arXiv 2503.17922, equations 1-7)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from observed_prompts import ObservedPrompt, block_bytes_of, make_layout

from windowkv_service.domain.requests import Task
from windowkv_service.selection import Leader, WindowKV
from windowkv_service.selection.windowkv import join_groups, published


def paper_scores(prompt, layer, alpha, top_p):
    """Window scores by head, by query, by token; windows on the grid of ω from token 0, review tokens
    only."""
    n, omega = prompt.num_tokens, prompt.layout.window_size
    queries = prompt.queries[layer].double().numpy()
    keys = prompt.keys[layer].double().numpy()
    num_heads, group = queries.shape[0], queries.shape[0] // keys.shape[1]
    per_head = []
    for head in range(num_heads):
        token_scores = np.zeros(n)  # t_j
        for i in range(n - alpha, n):
            logits = [queries[head, i] @ keys[j, head // group] * prompt.scales[layer] for j in range(i + 1)]
            weights = np.exp(logits - np.max(logits))
            token_scores[: i + 1] += weights / weights.sum()
        scores = []
        for start in range(0, n, omega):
            review = sorted(token_scores[start : min(start + omega, n - alpha)], reverse=True)
            p = omega if top_p is None else top_p
            scores.append(sum(review[:p]) / min(p, len(review)) if review else -math.inf)
        per_head.append(scores)
    return np.mean(per_head, axis=0)


def oracle(prompt, *, alpha, num_voters, top_p, group_size, fraction_of, keep_first, budget_bytes):
    """The lists of every layout group; None when two scores at the cut are too close to call in fp32."""
    layout, n, omega = prompt.layout, prompt.num_tokens, prompt.layout.window_size
    total = math.ceil(n / omega)
    lists = [tuple(layout.full_windows(group, n)) for group in layout.groups]
    observed = list(range((n - alpha) // omega, total))
    teams = join_groups(layout, group_size)
    layers = [sum(len(layout.groups[g].layers) for g in team) for team in teams]
    last = fraction_of(max(layers))
    shares = [1.0]
    if len(teams) > 1:
        shares = [2 - last - (2 - 2 * last) * t / (len(teams) - 1) for t in range(len(teams))]
    sliding = sum(len(lists[g.index]) * layout.block_bytes(g) for g in layout.groups if not g.is_selectable)
    costs = [sum(layout.block_bytes(layout.groups[g]) for g in team) for team in teams]
    left = budget_bytes - sliding
    fitting = max(0, left // sum(costs))
    observed = observed[max(0, len(observed) - max(0, fitting - 1)) :]  # what always stays gives way
    observed = set(observed) | ({0} if keep_first and len(observed) + 1 <= fitting / 2 else set())
    least = max(1, len(observed))  # no group is left without a window
    per_share = left / sum(share * cost for share, cost in zip(shares, costs, strict=True))

    def counts_at(level):
        return [min(max(level * share, least), total) for share in shares]

    level = per_share
    while level > 0 and sum(c * b for c, b in zip(counts_at(level), costs, strict=True)) > left * (1 + 1e-9):
        level -= per_share / 20_000  # forced windows took more than their group's share: all others give way
    for team, count in zip(teams, counts_at(max(level, 0)), strict=True):
        scores = paper_scores(prompt, layout.groups[team[0]].layers[0], num_voters, top_p)
        ranked = sorted((w for w in range(total) if w not in observed), key=lambda w: -scores[w])
        if abs(count - round(count)) < 2e-3 and level != per_share:
            return None  # the oracle's steps are too coarse to tell a whole window from a little less
        extra = max(0, math.floor(count + 1e-9) - len(observed))
        in_order = [max(scores[w], -1e9) for w in ranked]  # windows of observed tokens alone: no score at all
        if 0 < extra < len(ranked) and in_order[extra - 1] - in_order[extra] < 1e-6:
            return None
        for group in team:
            lists[group] = tuple(sorted(observed | set(ranked[:extra])))
    return lists


SHAPES = {"paper": lambda size: 1 / 14, "code": lambda size: size / 14, "uniform": lambda size: 1.0}
LAYOUTS = [
    {"num_layers": 4},
    {"num_layers": 5, "group_size": 2},  # L not divisible by the group size
    {"num_layers": 6, "group_size": 2, "sliding": {0: 20, 3: 20}},
    {"num_layers": 6, "group_size": 2, "readers": {4: 2, 5: 3}},  # KV-sharing layers
    {"num_layers": 1},
    {"num_layers": 4, "group_size": 4, "num_kv_heads": 1},
]


@settings(max_examples=120, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    num_tokens=st.integers(1, 70),
    window_size=st.integers(2, 9),
    mean_tokens=st.integers(1, 9),
    top_tokens=st.integers(1, 9),
    vote_tokens=st.none() | st.integers(1, 9),
    top_p=st.none() | st.integers(1, 9),
    group_size=st.integers(1, 4),
    shape=st.sampled_from(sorted(SHAPES)),
    task=st.sampled_from([Task.LOCALIZATION, Task.AGGREGATION]),
    task_mapping=st.sampled_from(["paper", "code"]),
    keep_first=st.booleans(),
    kept_ratio=st.floats(0.05, 1.2),
    seed=st.integers(0, 10_000),
)
def test_the_choice_is_the_papers(
    layout, num_tokens, window_size, mean_tokens, top_tokens, vote_tokens, top_p, group_size, shape, task, task_mapping,
    keep_first, kept_ratio, seed,
):  # fmt: skip
    layout = make_layout(**layout, window_size=window_size, head_dim=4)
    prompt = ObservedPrompt(layout, num_tokens, seed=seed)
    budget_bytes = int(kept_ratio * layout.full_bytes(num_tokens))
    selector = WindowKV(
        group_size=group_size, task_mapping=task_mapping, top_p=top_p, mean_tokens=mean_tokens,
        top_tokens=top_tokens, vote_tokens=vote_tokens, keep_first=keep_first, budget_shape=shape, redistribute=False,
    )  # fmt: skip
    uses_mean = (task is Task.LOCALIZATION) == (task_mapping == "paper")
    alpha = min(mean_tokens if uses_mean else top_tokens, num_tokens)
    expected = oracle(
        prompt,
        alpha=alpha,
        num_voters=min(alpha, vote_tokens or alpha),
        top_p=None if uses_mean else (top_p or max(1, window_size // 2)),
        group_size=group_size,
        fraction_of=SHAPES[shape],
        keep_first=keep_first,
        budget_bytes=budget_bytes,
    )
    assume(expected is not None)
    got = selector.select(prompt.observation(selector.observation_size), budget_bytes=budget_bytes, task=task)
    assert list(got.windows) == expected
    assert got.task is task


def test_a_prompt_under_its_budget_is_kept_whole_and_says_so():
    layout = make_layout(4, group_size=2)
    prompt = ObservedPrompt(layout, 50)
    whole = layout.num_windows(50) * sum(layout.block_bytes(group) for group in layout.groups)
    selector = WindowKV()
    got = selector.select(prompt.observation(32), budget_bytes=whole, task=Task.LOCALIZATION)
    assert got.windows == (tuple(range(7)),) * 2
    assert got.fidelity == 1.0
    got = selector.select(prompt.observation(32), budget_bytes=whole - 1, task=Task.LOCALIZATION)
    assert sum(map(len, got.windows)) == 13
    assert got.fidelity < 1.0


def test_layers_of_a_selection_group_share_the_list_of_its_first_layer():
    layout = make_layout(6, group_size=1)
    prompt = ObservedPrompt(layout, 120)
    budget_bytes = 6 * 5 * layout.block_bytes(layout.groups[0])
    arguments = {"budget_bytes": budget_bytes, "task": Task.LOCALIZATION}
    grouped = WindowKV(group_size=3).select(prompt.observation(32), **arguments)
    alone = WindowKV(group_size=1).select(prompt.observation(32), **arguments)
    assert grouped.windows[0] == grouped.windows[1] == grouped.windows[2] == alone.windows[0]
    assert grouped.windows[3] == grouped.windows[5] == alone.windows[3]
    assert WindowKV(group_size=3).observed_layers(layout) == (0, 3)


def test_given_leaders_choose_for_their_groups():
    layout = make_layout(4)
    prompt = ObservedPrompt(layout, 120)
    budget_bytes = 4 * 5 * layout.block_bytes(layout.groups[0])
    led = WindowKV(leaders=(Leader(2, (0, 1, 2, 3)),))
    got = led.select(prompt.observation(32), budget_bytes=budget_bytes, task=Task.LOCALIZATION)
    alone = WindowKV().select(prompt.observation(32), budget_bytes=budget_bytes, task=Task.LOCALIZATION)
    assert set(got.windows) == {alone.windows[2]}
    assert led.observed_layers(layout) == (2,)


def test_alpha_extra_comes_on_top_of_the_budget():
    layout = make_layout(4, window_size=8)
    prompt = ObservedPrompt(layout, 160)
    options = {"mean_tokens": 16, "keep_first": False}
    budget_bytes = 4 * 5 * layout.block_bytes(layout.groups[0])
    inside, extra = (
        WindowKV(is_alpha_extra=is_extra, **options).select(
            prompt.observation(32), budget_bytes=budget_bytes, task=Task.LOCALIZATION
        )
        for is_extra in (False, True)
    )
    assert [len(windows) for windows in inside.windows] == [5] * 4
    assert [len(windows) for windows in extra.windows] == [7] * 4  # 16 tokens are two windows


def test_each_mapping_gives_the_tasks_the_other_statistic():
    layout = make_layout(2)
    prompt = ObservedPrompt(layout, 200)

    def choose(mapping, task):
        selector = WindowKV(task_mapping=mapping)
        return selector.select(
            prompt.observation(32), budget_bytes=layout.full_bytes(200) // 3, task=task
        ).windows

    assert choose("paper", Task.LOCALIZATION) == choose("code", Task.AGGREGATION)
    assert choose("paper", Task.AGGREGATION) == choose("code", Task.LOCALIZATION)
    assert choose("paper", Task.LOCALIZATION) != choose("paper", Task.AGGREGATION)


@pytest.mark.parametrize("mapping", ["paper", "code"])
def test_auto_decides_from_the_attention_and_then_chooses_like_the_task_it_decided(mapping):
    layout = make_layout(2)
    decided = set()
    for strength in (0.0, 10.0):
        prompt = ObservedPrompt(layout, 400, sharpness=0.1)
        for layer in (0, 1):  # all observers look at token 203
            prompt.queries[layer][:, -32:, 0] = prompt.keys[layer][203, :, 0] = strength
        selector = WindowKV(task_mapping=mapping)
        arguments = {"budget_bytes": layout.full_bytes(400) // 4}
        auto = selector.select(prompt.observation(32), task=Task.AUTO, **arguments)
        assert auto == selector.select(prompt.observation(32), task=auto.task, **arguments)
        decided.add(auto.task)
    assert decided == {Task.LOCALIZATION, Task.AGGREGATION}


def test_requests_leave_no_state_behind():
    """The published code keeps the first request's task and budget for ever."""
    layout = make_layout(4)
    selector = published(group_size=2)
    prompts = [ObservedPrompt(layout, n, seed=n) for n in (90, 33, 150)]

    def run(prompt, task):
        return selector.select(
            prompt.observation(32), budget_bytes=layout.full_bytes(prompt.num_tokens) // 3, task=task
        )

    first = [run(prompt, task) for prompt in prompts for task in (Task.LOCALIZATION, Task.AGGREGATION)]
    again = [run(prompt, task) for prompt in prompts for task in (Task.LOCALIZATION, Task.AGGREGATION)]
    assert first == again


def test_half_precision_inputs_choose_like_their_fp32_values():
    """Scores near 1e-5 in fp16 would tie by the hundred and stay or go by their order."""
    layout = make_layout(1, num_kv_heads=1, head_dim=16)
    prompt = ObservedPrompt(layout, 20_000, sharpness=0.05)
    for table in (prompt.queries, prompt.keys):
        table[0] = table[0].half().float()
    budget_bytes = layout.full_bytes(20_000) // 8
    half, full = (
        WindowKV().select(prompt.observation(32, dtype), budget_bytes=budget_bytes, task=Task.LOCALIZATION)
        for dtype in (torch.float16, torch.float32)
    )
    assert half.windows == full.windows
    assert half.fidelity == pytest.approx(full.fidelity, abs=1e-6)


def test_bytes_are_counted_in_gqa_layout_from_the_tensors():
    layout = make_layout(4, num_kv_heads=1, head_dim=16)
    prompt = ObservedPrompt(layout, 300, heads_per_kv=8)
    budget_bytes = layout.full_bytes(300) // 5
    got = WindowKV().select(prompt.observation(32), budget_bytes=budget_bytes, task=Task.LOCALIZATION)
    taken = block_bytes_of(layout, got.windows)
    assert budget_bytes - layout.block_bytes(layout.groups[0]) < taken <= budget_bytes


def test_joined_groups_never_split_a_storage_group():
    layout = make_layout(7, group_size=2)
    assert join_groups(layout, 1) == [(0,), (1,), (2,), (3,)]
    assert join_groups(layout, 4) == [(0, 1), (2, 3)]
    assert join_groups(layout, 5) == [(0, 1), (2, 3)]
    assert join_groups(layout, 100) == [(0, 1, 2, 3)]
