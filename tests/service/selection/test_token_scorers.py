"""Every scorer against a slow oracle written from its paper's formula: NumPy, loops, double precision."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from observed_prompts import ObservedPrompt, make_layout

from windowkv_service.selection import attention
from windowkv_service.selection.base import ALL_QUERIES
from windowkv_service.selection.expected_attention import ExpectedAttention
from windowkv_service.selection.h2o import H2O
from windowkv_service.selection.keydiff import KeyDiff
from windowkv_service.selection.kvzip import KVzip
from windowkv_service.selection.random_tokens import Lots
from windowkv_service.selection.snapkv import SnapKV
from windowkv_service.selection.tova import TOVA

prompts = st.builds(
    lambda num_tokens, num_kv_heads, heads_per_kv, head_dim, seed: ObservedPrompt(
        make_layout(1, num_kv_heads=num_kv_heads, head_dim=head_dim),
        num_tokens,
        heads_per_kv=heads_per_kv,
        seed=seed,
    ),
    num_tokens=st.integers(1, 40),
    num_kv_heads=st.integers(1, 3),
    heads_per_kv=st.sampled_from([1, 2, 4, 8]),
    head_dim=st.sampled_from([2, 6, 16]),
    seed=st.integers(0, 1000),
)


def scores_of(scorer, prompt):
    return scorer.score(prompt.observation(scorer.observation_size), [0])[0].double().numpy()


def shares(query, keys, scale):
    weights = [math.exp(sum(q * k for q, k in zip(query, key, strict=True)) * scale) for key in keys]
    return [weight / sum(weights) for weight in weights]


def attention_of(prompt):
    """[heads, queries, tokens], causal."""
    queries, keys = prompt.queries[0].double().numpy(), prompt.keys[0].double().numpy()
    num_heads, n = queries.shape[0], prompt.num_tokens
    group = num_heads // keys.shape[1]
    whole = np.zeros((num_heads, n, n))
    for head in range(num_heads):
        for i in range(n):
            whole[head, i, : i + 1] = shares(queries[head, i], keys[: i + 1, head // group], prompt.scales[0])
    return whole


def by_kv_head(prompt, per_head):
    """Mean over the query heads of each KV head."""
    num_kv_heads = prompt.layout.num_kv_heads
    group = len(per_head) // num_kv_heads
    return np.array([np.mean(per_head[h * group : (h + 1) * group], axis=0) for h in range(num_kv_heads)])


@settings(max_examples=30, deadline=None)
@given(
    prompt=prompts,
    window=st.integers(1, 12),
    kernel=st.sampled_from([1, 3, 7]),
    pooling=st.sampled_from(["max", "mean"]),
)
def test_snapkv_pools_the_votes_of_the_last_tokens(prompt, window, kernel, pooling):
    n, whole = prompt.num_tokens, attention_of(prompt)
    expected = np.zeros((whole.shape[0], n))
    for head in range(whole.shape[0]):
        votes = [whole[head, n - window :, j].mean() for j in range(max(0, n - window))]
        for j in range(len(votes)):
            near = [votes[i] for i in range(j - kernel // 2, j + kernel // 2 + 1) if 0 <= i < len(votes)]
            expected[head, j] = max(near) if pooling == "max" else sum(near) / kernel
    got = scores_of(SnapKV(window, kernel, pooling), prompt)
    np.testing.assert_allclose(got, by_kv_head(prompt, expected), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(prompt=prompts, per_query=st.booleans())
def test_h2o_sums_the_attention_of_all_queries(prompt, per_query):
    n, whole = prompt.num_tokens, attention_of(prompt)
    expected = np.zeros((whole.shape[0], n))
    for head in range(whole.shape[0]):
        for j in range(n):
            received = sum(whole[head, i, j] for i in range(j, n))
            expected[head, j] = received / (n - j) if per_query else received
    np.testing.assert_allclose(
        scores_of(H2O(per_query=per_query), prompt), by_kv_head(prompt, expected), atol=3e-5
    )


@settings(max_examples=20, deadline=None)
@given(prompt=prompts, budget=st.integers(1, 300))
def test_attention_summed_in_pieces_is_the_attention_summed_at_once(prompt, budget):
    whole = scores_of(H2O(), prompt)
    kept, attention.MOST_LOGITS = attention.MOST_LOGITS, budget
    try:
        np.testing.assert_allclose(scores_of(H2O(), prompt), whole, atol=2e-5)
    finally:
        attention.MOST_LOGITS = kept


@settings(max_examples=30, deadline=None)
@given(prompt=prompts)
def test_tova_asks_the_last_token_and_all_heads_as_one(prompt):
    expected = np.mean(attention_of(prompt)[:, -1], axis=0)
    for got in scores_of(TOVA(), prompt):
        np.testing.assert_allclose(got, expected, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(prompt=prompts)
def test_keydiff_compares_each_key_with_the_mean_direction(prompt):
    keys = prompt.keys[0].double().numpy()
    for head, got in enumerate(scores_of(KeyDiff(), prompt)):
        anchor = sum(key / np.linalg.norm(key) for key in keys[:, head]) / len(keys)
        length = np.linalg.norm(anchor)
        for key, score in zip(keys[:, head], got, strict=True):
            assert score == pytest.approx(-key @ anchor / np.linalg.norm(key) / length, abs=1e-5)


def rotation(prompt, position):
    """RoPE at a position as a matrix, from the half-split formula."""
    dim = prompt.layout.head_dim
    turn = np.zeros((dim, dim))
    for channel in range(dim // 2):
        angle = position * 100.0 ** (-channel / (dim // 2))
        pair = [channel, channel + dim // 2]
        turn[np.ix_(pair, pair)] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return turn


@settings(max_examples=20, deadline=None)
@given(
    prompt=prompts,
    sinks=st.integers(0, 5),
    epsilon=st.sampled_from([0.0, 0.02]),
    observed=st.sampled_from([1, 3, ALL_QUERIES]),
)
def test_expected_attention_draws_future_queries_like_the_prompts(prompt, sinks, epsilon, observed):
    n, scale, num_future = prompt.num_tokens, prompt.scales[0], 5
    queries, keys = prompt.queries[0].double().numpy(), prompt.keys[0].double().numpy()
    mean_turn = sum(rotation(prompt, n + step) for step in range(num_future)) / num_future
    per_head = np.zeros((len(queries), n))
    for head in range(len(queries)) if n > sinks else []:
        raw = np.array([rotation(prompt, i).T @ queries[head, i] for i in range(max(sinks, n - observed), n)])
        mean = raw.mean(axis=0)
        spread = sum(np.outer(q - mean, q - mean) for q in raw) / len(raw)
        own = keys[sinks:, head // (len(queries) // keys.shape[1])]
        logits = [
            k @ mean_turn @ mean * scale + k @ mean_turn @ spread @ mean_turn.T @ k * scale**2 / 2
            for k in own
        ]
        weights = np.exp(np.array(logits) - max(logits))
        per_head[head, sinks:] = weights / weights.sum()
    norms = np.linalg.norm(prompt.values[0].double().numpy(), axis=-1).T
    expected = (by_kv_head(prompt, per_head) + epsilon) * norms
    expected[:, :sinks] = 0
    got = scores_of(ExpectedAttention(observed, num_future, sinks, epsilon), prompt)
    np.testing.assert_allclose(got, expected, atol=2e-4)


@settings(max_examples=20, deadline=None)
@given(prompt=prompts, chunk_tokens=st.integers(1, 50), announced=st.lists(st.integers(0, 49), max_size=4))
def test_kvzip_scores_the_most_a_token_receives_while_its_chunk_is_repeated(prompt, chunk_tokens, announced):
    scorer = KVzip(
        chunk_tokens=chunk_tokens, num_sinks=3, announce_first=(7,), announce_last=tuple(announced)
    )
    keys, n, ids = prompt.keys[0].double().numpy(), prompt.num_tokens, prompt.token_ids
    expected = np.zeros((prompt.layout.num_kv_heads, n))
    for start in range(0, n, chunk_tokens):
        end = min(n, start + chunk_tokens)
        said = [7] if start == 0 else ids[max(0, start - 8) : start]
        queries, new_keys = prompt.repeat([*said, *announced, *ids[start:end]])[0]
        queries, new_keys = queries.double().numpy(), new_keys.double().numpy()
        for head in range(queries.shape[0]):
            kv_head = head // (queries.shape[0] // keys.shape[1])
            sinks = keys[: min(3, start), kv_head]
            for i in range(queries.shape[1]):
                seen = np.concatenate([sinks, keys[start:end, kv_head], new_keys[: i + 1, kv_head]])
                share = shares(queries[head, i], seen, prompt.scales[0])
                for j in range(start, end):
                    received = share[len(sinks) + j - start]
                    expected[kv_head, j] = max(expected[kv_head, j], received)
    np.testing.assert_allclose(scores_of(scorer, prompt), expected, atol=1e-5)


def test_lots_differ_by_head_layer_length_and_seed_and_repeat_themselves():
    prompt = ObservedPrompt(make_layout(2), 50)
    observation = prompt.observation(ALL_QUERIES)
    drawn = Lots().score(observation, [0, 1])
    again = Lots().score(observation, [1, 0])
    assert torch.equal(drawn[0], again[0]) and torch.equal(drawn[1], again[1])
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0][0], drawn[0][1])
    assert not torch.equal(drawn[0], Lots(seed=1).score(observation, [0])[0])


def test_soft_caps_are_applied_before_the_softmax():
    prompt = ObservedPrompt(make_layout(1, num_kv_heads=1), 20, heads_per_kv=1)
    observation = prompt.observation(1)
    plain = TOVA().score(observation, [0])[0]
    observation.softcaps[0] = 1e-3  # all scores alike
    capped = TOVA().score(observation, [0])[0]
    torch.testing.assert_close(capped, torch.full((1, 20), 1 / 20), atol=1e-4, rtol=0)
    assert plain.max() > 0.2
