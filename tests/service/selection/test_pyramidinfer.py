"""PyramidInfer's arithmetic: how many tokens each layer keeps, and which."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from observed_prompts import ObservedPrompt, make_layout

from windowkv_service.selection.pyramidinfer import PyramidInfer


def test_the_published_ratios_keep_about_three_quarters_of_32_layers():
    shares = PyramidInfer().shares(32)
    assert shares[0] == 1.0
    context = 0.8 * 2048 - 1  # what is not recent
    kept = [context * share + 0.2 * 2048 + 1 for share in shares]
    assert 0.3 < kept[-1] / 2048 < 0.42
    assert 0.65 < sum(kept) / 32 / 2048 < 0.78


@given(
    num_layers=st.integers(1, 9),
    num_tokens=st.integers(1, 500),
    kept_ratio=st.floats(0.0, 1.2),
    decay=st.floats(0.0, 1.0),
)
def test_layers_keep_whole_blocks_within_the_budget_and_never_more_than_those_before(
    num_layers, num_tokens, kept_ratio, decay
):
    layout = make_layout(num_layers)
    budget_bytes = int(kept_ratio * layout.full_bytes(num_tokens))
    kept = PyramidInfer(decay=decay).keeps(layout, num_tokens, budget_bytes)
    assert len(kept) == num_layers
    assert all(1 <= later <= earlier <= num_tokens for earlier, later in pairwise(kept))
    assert all(count % 8 == 0 or count == num_tokens for count in kept)
    packed = sum(-(-count // 8) * layout.block_bytes(layout.groups[0]) for count in kept)
    assert packed <= max(budget_bytes, num_layers * layout.block_bytes(layout.groups[0]))


def test_a_smaller_budget_keeps_the_shape():
    layout = make_layout(8, window_size=1)
    large = PyramidInfer().keeps(layout, 1000, layout.full_bytes(1000) // 2)
    small = PyramidInfer().keeps(layout, 1000, layout.full_bytes(1000) // 8)
    np.testing.assert_allclose(np.array(small) * 4, large, rtol=0.05)


@settings(max_examples=40, deadline=None)
@given(
    num_left=st.integers(1, 60),
    num_recent=st.integers(1, 20),
    keep=st.floats(0.05, 1.1),
    heads_per_kv=st.sampled_from([1, 4]),
    seed=st.integers(0, 100),
)
def test_the_recent_tokens_attention_decides_the_later_the_more(
    num_left, num_recent, keep, heads_per_kv, seed
):
    method = PyramidInfer()
    num_recent, count = min(num_recent, num_left), max(1, int(keep * num_left))
    prompt = ObservedPrompt(make_layout(1), num_left, heads_per_kv=heads_per_kv, seed=seed)
    queries, keys = prompt.queries[0][:, num_left - num_recent :], prompt.keys[0]
    got = method.survivors(method.score(queries, keys, scale=0.3), num_recent, count).tolist()

    score = np.zeros(num_left)
    for head in range(queries.shape[0]):
        own = keys[:, head // heads_per_kv].double().numpy()
        for row, query in enumerate(queries[head].double().numpy()):
            seen = num_left - num_recent + row + 1
            weights = np.exp(own[:seen] @ query * 0.3)
            importance = 1 + 0.2 * row / (num_recent - 1) if num_recent > 1 else 1.0
            score[:seen] += importance * weights / weights.sum()
    first, last = method.protected(num_recent, num_left, count)
    held = [j for j in range(num_left) if j < first or j >= num_left - last]
    rest = sorted((j for j in range(num_left) if j not in held), key=lambda j: -score[j])
    if count < num_left:
        taken, left = rest[: count - len(held)], rest[count - len(held) :]
        if taken and left and math.isclose(score[taken[-1]], score[left[0]], rel_tol=1e-5):
            return  # too close to call in fp32
        assert got == sorted(held + taken)
    else:
        assert got == list(range(num_left))


def test_sinks_and_recent_tokens_stay_and_leave_room_for_others():
    method = PyramidInfer()
    assert method.num_recent(100) == 21
    assert method.protected(21, 100, 60) == (4, 21)
    assert method.protected(21, 100, 30) == (4, 11)
    prompt = ObservedPrompt(make_layout(1), 100)
    score = method.score(prompt.queries[0][:, -21:], prompt.keys[0], scale=0.3)
    got = method.survivors(score, 21, 60)
    assert set(range(4)) | set(range(79, 100)) <= set(got.tolist())
    assert torch.equal(got, got.sort().values) and got.numel() == 60
    assert pytest.approx(1.0) == method.shares(1)[0]
