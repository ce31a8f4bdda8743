"""How lists of tokens share a budget: PyramidKV's line, AdaKV's contest, and one over the whole model."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from observed_prompts import ObservedPrompt, make_layout

from windowkv_service.domain.requests import Task
from windowkv_service.selection import TokenSelector
from windowkv_service.selection.budgets import contend
from windowkv_service.selection.keydiff import KeyDiff
from windowkv_service.selection.kvzip import KVzip
from windowkv_service.selection.pyramidkv import Pyramid
from windowkv_service.selection.snapkv import SnapKV


def chosen(selector, prompt, budget_bytes):
    observation = prompt.observation(selector.observation_size)
    return selector.select(observation, budget_bytes=budget_bytes, task=Task.AUTO).tokens


def test_the_line_is_the_authors():
    """Tokens per layer of KVCache-Factory: 32 layers, C = 128, w = 8, β = 20."""
    got = Pyramid(window=8, steepness=20).shares(32, 128, 8000)
    assert got[0] == 8 + 2 * 120 - 6 and got[-1] == 8 + 6
    assert sum(got) / 32 == pytest.approx(128)
    steps = np.diff(got)
    np.testing.assert_allclose(steps, [(6 - 234) / 31] * 31)


def test_where_the_first_layer_would_pass_the_prompt_the_line_is_flatter():
    got = Pyramid(window=8, steepness=20).shares(4, 128, 200)
    assert got[0] == 200 and got[-1] == 8 + 2 * 120 - 192
    assert sum(got) / 4 == pytest.approx(128)


@given(
    num_layers=st.integers(1, 40),
    mean_tokens=st.floats(0, 5000, allow_subnormal=False),
    num_tokens=st.integers(1, 5000),
    window=st.integers(1, 100),
    steepness=st.floats(1, 50),
)
def test_the_line_never_rises_never_ends_below_nothing_and_keeps_its_mean(
    num_layers, mean_tokens, num_tokens, window, steepness
):
    got = Pyramid(window, steepness).shares(num_layers, mean_tokens, num_tokens)
    assert len(got) == num_layers
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(got))
    assert got[-1] > 0
    if num_layers > 1 and mean_tokens > 0:
        assert sum(got) / num_layers == pytest.approx(min(mean_tokens, num_tokens), rel=1e-6)
        assert got[0] <= num_tokens + 1e-6


def greedy(ranked, total_blocks, block_tokens, least):
    """One block at a time to the list that gains most by it."""
    floor, num_lists = np.min(ranked), len(ranked)
    counts = [0] * num_lists

    def gain(number):
        block = ranked[number, counts[number] * block_tokens : (counts[number] + 1) * block_tokens] - floor
        if len(block) == 0:
            return -math.inf
        return math.inf if counts[number] < least else math.fsum(block)

    for _ in range(total_blocks):
        gains = [gain(number) for number in range(num_lists)]
        # The first blocks of all lists come before any list's second.
        urgent = [number for number in range(num_lists) if gains[number] == math.inf]
        winner = min(urgent, key=lambda number: counts[number]) if urgent else int(np.argmax(gains))
        counts[winner] += 1
    return counts


@settings(max_examples=60, deadline=None)
@given(
    num_lists=st.integers(1, 5),
    num_tokens=st.integers(1, 30),
    block_tokens=st.integers(1, 8),
    least=st.integers(1, 3),
    fill=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_contending_lists_win_what_a_greedy_hand_would_give_them(
    num_lists, num_tokens, block_tokens, least, fill, seed
):
    generator = np.random.default_rng(seed)
    ranked = -np.sort(-generator.normal(size=(num_lists, num_tokens)), axis=1)
    num_blocks = -(-num_tokens // block_tokens)
    total = num_lists + int(fill * num_lists * (num_blocks - 1))
    least = min(least, num_blocks, total // num_lists)
    got = contend(torch.from_numpy(ranked), total, block_tokens=block_tokens, least=least)
    assert got == greedy(ranked, total, block_tokens, least)
    assert sum(got) == total and min(got) >= 1


@settings(max_examples=25, deadline=None)
@given(num_tokens=st.integers(10, 80), kept_ratio=st.floats(0.2, 0.9), alpha=st.floats(0, 1))
def test_with_blocks_of_one_token_heads_contend_as_in_adakv(num_tokens, kept_ratio, alpha):
    """Every head's α share first, then the best of all heads together."""
    layout = make_layout(1, window_size=1, num_kv_heads=3)
    prompt = ObservedPrompt(layout, num_tokens)
    per_head = max(1, int(num_tokens * kept_ratio))
    selector = TokenSelector("adaptive", KeyDiff(), adaptive="heads", floor=alpha)
    got = chosen(selector, prompt, 3 * per_head * 2 * layout.head_dim * 4)
    scores = KeyDiff().score(prompt.observation(0), [0])[0].double().numpy()
    floor = max(1, int(alpha * per_head))
    rows = []
    for head in range(3):
        order = np.argsort(-scores[head], kind="stable")
        rows += [(rank < floor, scores[head, token], head, token) for rank, token in enumerate(order)]
    expected = sorted(rows, key=lambda row: (row[0], row[1]), reverse=True)[: 3 * per_head]
    for head in range(3):
        kept = sorted(int(token) for _, _, owner, token in expected if owner == head)
        assert got[0, head].tolist() == kept


def test_a_head_that_looks_everywhere_gets_more_of_its_layers_budget_than_one_that_looks_at_little():
    layout = make_layout(1, num_kv_heads=2)
    prompt = ObservedPrompt(layout, 400)
    prompt.keys[0][:, 0] *= 0.01  # flat attention, wherever the queries point
    prompt.keys[0][:, 1] *= 2
    even, uneven = (
        chosen(
            TokenSelector("either", SnapKV(window=8, kernel=1), adaptive=adaptive, floor=0.2),
            prompt,
            layout.full_bytes(400) // 4,
        )
        for adaptive in ("no", "heads")
    )
    assert abs(even[0, 0].numel() - even[0, 1].numel()) <= 8  # one block
    total = even[0, 0].numel() + even[0, 1].numel()
    assert uneven[0, 0].numel() + uneven[0, 1].numel() == total
    assert uneven[0, 0].numel() > 1.3 * uneven[0, 1].numel() >= 1.3 * 0.2 * total / 2 - 8


@settings(max_examples=15, deadline=None)
@given(num_tokens=st.integers(20, 70), kept_ratio=st.floats(0.2, 0.9))
def test_over_the_whole_model_one_threshold_decides(num_tokens, kept_ratio):
    """KVzip: blocks of one token, no floor; whatever stays scores above whatever goes."""
    layout = make_layout(3, window_size=1)
    prompt = ObservedPrompt(layout, num_tokens)
    selector = TokenSelector("kvzip", KVzip(num_sinks=0), adaptive="model", floor=0.0)
    got = chosen(selector, prompt, int(kept_ratio * layout.full_bytes(num_tokens)))
    scores = KVzip(num_sinks=0).score(prompt.observation(0), [0, 1, 2])
    kept, dropped = [], []
    for (layer, head), tokens in got.items():
        mask = torch.zeros(num_tokens, dtype=torch.bool).index_fill(0, tokens, True)
        if tokens.numel() > 1:  # every list keeps its best token
            kept += scores[layer][head, mask].tolist()
        dropped += scores[layer][head, ~mask].tolist()
    assert sum(tokens.numel() for tokens in got.values()) == int(kept_ratio * 6 * num_tokens)
    assert min(kept) >= max(dropped)
