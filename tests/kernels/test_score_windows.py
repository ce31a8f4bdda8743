"""score_windows and score_leader_keys against the paper's formulas in fp64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windowkv_kernels import quantize_keys, score_leader_keys, score_windows

SHAPES = [  # n, α, ω, H, Hkv, D
    (1, 1, 16, 1, 1, 16),
    (15, 3, 16, 4, 4, 16),
    (16, 3, 16, 4, 2, 64),
    (17, 1, 16, 8, 1, 96),
    (33, 17, 16, 8, 1, 16),
    (97, 13, 8, 4, 2, 16),
    (101, 101, 7, 2, 2, 16),
    (128, 32, 32, 16, 2, 16),
]


def attention(queries, keys, scale, softcap, is_causal):
    """[H, α, n] in fp64."""
    queries, keys = queries.double().numpy(), keys.double().numpy()
    heads, alpha, _ = queries.shape
    n, kv_heads, _ = keys.shape
    logits = np.stack([queries[h] @ keys[:, h // (heads // kv_heads)].T for h in range(heads)]) * scale
    if softcap is not None:
        logits = softcap * np.tanh(logits / softcap)
    if is_causal:
        for i in range(alpha):
            logits[:, i, n - alpha + i + 1 :] = -np.inf
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def expected_scores(weights, num_review, window_size, top_p):
    heads, alpha, n = weights.shape
    tokens = weights.sum(1)
    score, mass = [], []
    for start in range(0, n, window_size):
        mass.append(weights[:, :, start : start + window_size].sum() / (heads * alpha))
        review = tokens[:, start : min(start + window_size, num_review)]
        if start >= num_review:
            score.append(-math.inf)
            continue
        p = window_size if top_p is None else top_p
        per_head = [np.sort(review[h])[::-1][:p].mean() for h in range(heads)]
        score.append(float(np.mean(per_head)))
    return np.array(score), np.array(mass)


def make_pair(shape, seed=0):
    n, alpha, _, heads, kv_heads, dim = shape
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(heads, alpha, dim, generator=generator)
    keys = torch.randn(n, kv_heads, dim, generator=generator) * 2
    return queries, keys


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("top_p", [None, 1, 4, 1000])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_scores_follow_the_formulas(shape, top_p, softcap):
    n, alpha, window_size, _, _, dim = shape
    queries, keys = make_pair(shape)
    scale = dim**-0.5
    got = score_windows(queries, keys, window_size=window_size, scale=scale, top_p=top_p, softcap=softcap)
    weights = attention(queries, keys, scale, softcap, is_causal=True)
    score, mass = expected_scores(weights, n - alpha, window_size, top_p)
    np.testing.assert_allclose(got.score.numpy(), score, atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(got.mass.numpy(), mass, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("top_p", [None, 1, 4])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_denominators_that_are_known_change_nothing(shape, top_p, softcap):
    _, alpha, window_size, heads, kv_heads, dim = shape
    queries, keys = make_pair(shape)
    terms = {"window_size": window_size, "scale": dim**-0.5, "top_p": top_p, "softcap": softcap}
    logits = queries.double() @ keys.double().repeat_interleave(heads // kv_heads, 1).permute(1, 2, 0)
    logits = logits * dim**-0.5
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    hidden = torch.ones(logits.shape[1:], dtype=torch.bool).triu(keys.shape[0] - alpha + 1)
    lse = logits.masked_fill(hidden, -math.inf).logsumexp(-1).float()
    got = score_windows(queries, keys, lse=lse, **terms)
    found = score_windows(queries, keys, **terms)
    torch.testing.assert_close(got.score, found.score, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(got.mass, found.mass, atol=1e-6, rtol=1e-5)
    if alpha > 1:  # of more queries than observe, the last
        some = score_windows(queries, keys, lse=lse, num_observed=1, **terms)
        alone = score_windows(queries, keys, num_observed=1, **terms)
        torch.testing.assert_close(some.score, alone.score, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("top_p", [None, 3])
def test_a_question_scores_every_token_of_the_document(shape, top_p):
    n, _, window_size, _, _, dim = shape
    queries, keys = make_pair(shape)
    scale = dim**-0.5
    got = score_leader_keys(queries, keys, window_size=window_size, scale=scale, top_p=top_p)
    score, mass = expected_scores(attention(queries, keys, scale, None, False), n, window_size, top_p)
    np.testing.assert_allclose(got.score.numpy(), score, atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(got.mass.numpy(), mass, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 90),
    alpha=st.integers(1, 20),
    window_size=st.integers(1, 20),
    top_p=st.none() | st.integers(1, 25),
    seed=st.integers(0, 2**31),
)
def test_mass_sums_to_one_and_only_review_windows_have_a_score(n, alpha, window_size, top_p, seed):
    alpha = min(alpha, n)
    queries, keys = make_pair((n, alpha, window_size, 4, 2, 8), seed)
    got = score_windows(queries, keys, window_size=window_size, scale=0.3, top_p=top_p)
    assert got.mass.sum().item() == pytest.approx(1.0, abs=1e-5)
    starts = torch.arange(0, n, window_size)
    assert torch.equal(torch.isfinite(got.score), starts < n - alpha)


def test_only_the_last_num_observed_queries_observe():
    queries, keys = make_pair((64, 20, 8, 4, 2, 16))
    some = score_windows(queries, keys, num_observed=5, window_size=8, scale=0.25)
    alone = score_windows(queries[:, -5:], keys, window_size=8, scale=0.25)
    assert torch.equal(some.score, alone.score)
    assert torch.equal(some.mass, alone.mass)


def test_top_p_is_taken_per_head_before_heads_are_averaged():
    """Two heads look at different tokens of window 0 and at one and the same token of window 1."""
    keys = torch.zeros(9, 1, 2)
    keys[0, 0], keys[1, 0] = (
        torch.tensor([8.0, 0.0]),
        torch.tensor([0.0, 8.0]),
    )  # window 0: one token per head
    keys[4, 0] = torch.tensor([7.5, 7.5])  # window 1: both heads
    queries = torch.eye(2)[:, None]  # head h looks along axis h
    got = score_windows(queries, keys, window_size=4, scale=1.0, top_p=1)
    assert got.score[0] > got.score[1]
    weights = attention(queries, keys, 1.0, None, True)
    heads_first = [weights.mean(0)[0, start : start + 4].max() for start in (0, 4)]
    assert heads_first[0] < heads_first[1]  # averaging first would turn the order round


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_are_fp32_and_do_not_tie_when_the_inputs_are_short(dtype):
    """Sums of weights near 1e-5: in the inputs' own dtype most would fall on one number."""
    queries, keys = make_pair((20_000, 8, 8, 2, 1, 16))
    queries, keys = (queries * 0.05).to(dtype), (keys * 0.05).to(dtype)
    got = score_windows(queries, keys, window_size=8, scale=0.25)
    exact = score_windows(queries.float(), keys.float(), window_size=8, scale=0.25)
    assert got.score.dtype == got.mass.dtype == torch.float32
    assert torch.equal(got.score, exact.score)
    assert got.score.unique().numel() > 2000  # of 2500
    assert got.score.to(dtype).unique().numel() < 500


def test_quantized_leader_keys_score_as_their_dequantized_values():
    queries, keys = make_pair((600, 5, 16, 4, 2, 16))
    for bits, tolerance in ((8, 2e-3), (4, 5e-2)):
        quantized = quantize_keys(keys, bits=bits)
        got = score_leader_keys(queries, quantized, window_size=16, scale=0.25)
        exact = score_leader_keys(queries, keys, window_size=16, scale=0.25)
        assert (got.mass - exact.mass).abs().max() < tolerance


@pytest.mark.parametrize(
    "change",
    [
        {"num_observed": 0},
        {"num_observed": 6},
        {"window_size": 0},
        {"top_p": 0},
        {"keys": torch.randn(40, 3, 16)},
        {"keys": torch.randn(40, 2, 8)},
        {"keys": torch.randn(4, 2, 16)},
        {"keys": torch.randn(40, 2, 16).int()},
        {"queries": torch.randn(4, 16)},
        {"lse": torch.randn(4, 4)},
        {"lse": torch.randn(4, 5).double()},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(change):
    arguments = {
        "queries": torch.randn(4, 5, 16),
        "keys": torch.randn(40, 2, 16),
        "window_size": 8,
        "scale": 0.25,
    }
    with pytest.raises(ValueError):
        score_windows(**(arguments | change))
