"""Quest's page bounds: above every key's score, tight for lone keys, and found again by a question."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from observed_prompts import ObservedPrompt, make_layout

from windowkv_service.selection import QuestionProfile
from windowkv_service.selection.page_bounds import PageBounds
from windowkv_service.selection.quest import quest_profile

cases = {
    "num_tokens": st.integers(1, 60),
    "window_size": st.sampled_from([1, 4, 8, 16]),
    "heads_per_kv": st.sampled_from([1, 2, 4, 8]),
    "head_dim": st.sampled_from([2, 8, 32]),
    "seed": st.integers(0, 100),
}


def observed(num_tokens, heads_per_kv, head_dim, seed):
    prompt = ObservedPrompt(
        make_layout(1, head_dim=head_dim), num_tokens, heads_per_kv=heads_per_kv, seed=seed
    )
    return prompt.queries[0][:, -3:], prompt.keys[0]


@settings(max_examples=50, deadline=None)
@given(**cases)
def test_bounds_and_shares_are_the_papers(num_tokens, window_size, heads_per_kv, head_dim, seed):
    queries, keys = observed(num_tokens, heads_per_kv, head_dim, seed)
    pages = PageBounds.build(keys, window_size)
    got = pages.bounds(queries).double().numpy()
    num_windows = -(-num_tokens // window_size)
    shares = np.zeros(num_windows)
    for head in range(queries.shape[0]):
        own = keys[:, head // heads_per_kv].double().numpy()
        for row, query in enumerate(queries[head].double().numpy()):
            bounds, counts = [], []
            for start in range(0, num_tokens, window_size):
                page = own[start : start + window_size]
                bounds.append(
                    sum(
                        max(q * low, q * high)
                        for q, low, high in zip(query, page.min(0), page.max(0), strict=True)
                    )
                )
                counts.append(len(page))
                assert bounds[-1] >= max(page @ query) - 1e-9
            np.testing.assert_allclose(got[head, row], bounds, rtol=1e-4, atol=1e-4)
            weights = np.array(counts) * np.exp(np.array(bounds) * 0.2 - max(bounds) * 0.2)
            shares += weights / weights.sum()
    scored = pages.score(queries, scale=0.2)
    expected = shares / (queries.shape[0] * queries.shape[1])
    np.testing.assert_allclose(scored.score.double().numpy(), expected, atol=1e-5)
    assert scored.mass.sum().item() == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(**cases, dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_bytes_are_counted_as_they_are_stored(num_tokens, window_size, heads_per_kv, head_dim, seed, dtype):
    _, keys = observed(num_tokens, heads_per_kv, head_dim, seed)
    pages = PageBounds.build(keys.to(dtype), window_size)
    counted = PageBounds.count_bytes(
        num_tokens, 2, head_dim, window_size=window_size, itemsize=keys.to(dtype).element_size()
    )
    assert pages.size_bytes == counted


@settings(max_examples=30, deadline=None)
@given(**cases, dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_bounds_survive_as_bytes(num_tokens, window_size, heads_per_kv, head_dim, seed, dtype):
    layout = make_layout(1, head_dim=head_dim, window_size=window_size, itemsize=dtype.itemsize)
    profile = quest_profile(layout)
    _, keys = observed(num_tokens, heads_per_kv, head_dim, seed)
    pages = profile.index_of(keys.to(dtype), layout)
    data = pages.flat()
    assert len(data) == pages.size_bytes == profile.index_bytes(layout, num_tokens)
    again = profile.restore(data, layout, num_tokens, dtype)
    assert torch.equal(again.low, pages.low) and torch.equal(again.high, pages.high)
    with pytest.raises(ValueError, match="page bounds"):
        profile.restore(data[:-1], layout, num_tokens, dtype)


def test_every_selectable_group_is_led_by_its_own_first_layer():
    layout = make_layout(7, group_size=2, sliding={0: 16, 3: 16})
    profile = quest_profile(layout)
    profile.check(layout)
    assert profile.layers == (1, 4, 6)
    assert profile.digest != QuestionProfile(profile.leaders).digest


def test_the_questions_last_token_votes():
    queries, keys = observed(60, 4, 8, 3)
    profile = quest_profile(make_layout(1))
    got = profile.score(queries, PageBounds.build(keys, 8), window_size=8, scale=0.3)
    assert torch.equal(got.score, PageBounds.build(keys, 8).score(queries[:, -1:], scale=0.3).score)


def test_with_pages_of_one_token_shares_are_attention():
    queries, keys = observed(40, 4, 8, 1)
    got = PageBounds.build(keys, 1).score(queries, scale=0.3).mass
    logits = torch.einsum("kgmd,nkd->kgmn", queries.view(2, 4, 3, 8), keys) * 0.3
    torch.testing.assert_close(got, logits.softmax(-1).mean(dim=(0, 1, 2)), atol=1e-6, rtol=1e-4)


def test_the_window_that_holds_what_is_asked_for_ranks_first():
    queries, keys = observed(60, 4, 32, 2)
    keys[35] = queries.mean(dim=(0, 1)) * 6
    assert PageBounds.build(keys, 8).score(queries, scale=0.5).score.argmax() == 35 // 8
