"""What every method that keeps single tokens promises, on every kind of layout, length, head and budget."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from observed_prompts import ObservedPrompt, block_bytes_of, make_layout, packed_bytes_of

from windowkv_service.domain.requests import Task
from windowkv_service.selection import TokenSelector, token_selectors
from windowkv_service.selection.budgets import Uniform
from windowkv_service.selection.pyramidkv import Pyramid
from windowkv_service.selection.snapkv import SnapKV

METHODS = token_selectors()
COMPOSED = {
    f"{heads}, {adaptive}, {shape}": TokenSelector(
        "composed", SnapKV(window=4, kernel=3), shape=SHAPE, heads=heads, adaptive=adaptive
    )
    for shape, SHAPE in {"uniform": Uniform(), "pyramid": Pyramid(window=4)}.items()
    for heads in ("each", "all")
    for adaptive in ("no", "heads", "model")
}
LAYOUTS = {
    "plain": {},
    "ragged": {"num_layers": 7, "group_size": 3},
    "sliding": {"num_layers": 6, "group_size": 2, "sliding": {0: 24, 1: 24, 4: 24}},
    "shared": {"num_layers": 6, "group_size": 2, "readers": {3: 1, 4: 1, 5: 2}},
    "one head, 2 bytes": {"num_kv_heads": 1, "itemsize": 2},
    "large windows": {"num_layers": 2, "window_size": 32, "num_kv_heads": 3},
}


def chosen(selector, prompt, budget_bytes):
    observation = prompt.observation(selector.observation_size)
    return selector.select(observation, budget_bytes=budget_bytes, task=Task.AUTO)


def keep_promises(selector, layout, num_tokens, kept_ratio, heads_per_kv):
    prompt = ObservedPrompt(layout, num_tokens, heads_per_kv=heads_per_kv)
    budget_bytes = int(kept_ratio * layout.full_bytes(num_tokens))
    got = chosen(selector, prompt, budget_bytes)

    layers = [layer for group in layout.selectable_groups for layer in group.layers]
    assert set(got.tokens) == {(layer, head) for layer in layers for head in range(layout.num_kv_heads)}
    for kept in got.tokens.values():
        assert kept.dtype == torch.int64 and kept.device.type == "cpu"
        assert 1 <= kept.numel() <= num_tokens
        assert (kept.diff() > 0).all()
        assert kept[0] >= 0 and kept[-1] < num_tokens
        first, last = selector.scorer.protected(num_tokens, kept.numel())
        if selector.adaptive == "no":  # contending lists protect what an equal part would
            assert set(range(first)) | set(range(num_tokens - last, num_tokens)) <= set(kept.tolist())
    assert 0.0 <= got.fidelity <= 1.0

    one_block_each = len(got.tokens) * 2 * layout.window_size * layout.head_dim * layout.itemsize
    sliding = tuple(
        () if group.is_selectable else tuple(layout.full_windows(group, num_tokens))
        for group in layout.groups
    )
    least_bytes = one_block_each + block_bytes_of(layout, sliding)
    assert packed_bytes_of(layout, got, num_tokens) <= max(budget_bytes, least_bytes)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=8, deadline=None)
@given(
    num_tokens=st.sampled_from([1, 2, 7, 8, 9, 31, 33]) | st.integers(1, 130),
    kept_ratio=st.floats(0.01, 1.0),
    heads_per_kv=st.sampled_from([1, 2, 4, 8]),
    head_dim=st.sampled_from([2, 8, 16, 64]),
)
def test_a_method_keeps_its_promises(layout, name, num_tokens, kept_ratio, heads_per_kv, head_dim):
    keep_promises(
        METHODS[name], make_layout(**LAYOUTS[layout], head_dim=head_dim), num_tokens, kept_ratio, heads_per_kv
    )


@pytest.mark.parametrize("name", COMPOSED)
@settings(max_examples=15, deadline=None)
@given(num_tokens=st.integers(1, 130), kept_ratio=st.floats(0.01, 1.0), layout=st.sampled_from(list(LAYOUTS)))
def test_scorer_shape_and_sharing_compose(name, num_tokens, kept_ratio, layout):
    keep_promises(COMPOSED[name], make_layout(**LAYOUTS[layout]), num_tokens, kept_ratio, 2)


@pytest.mark.parametrize("name", METHODS)
def test_a_prompt_is_chosen_for_alike_whatever_else_runs(name):
    layout, selector = make_layout(3), METHODS[name]
    prompts = [ObservedPrompt(layout, 60 + 23 * seed, seed=seed) for seed in range(6)]
    alone = [chosen(selector, prompt, layout.full_bytes(60) // 3) for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        beside = list(
            pool.map(lambda prompt: chosen(selector, prompt, layout.full_bytes(60) // 3), [*prompts[::-1]])
        )
    for first, second in zip(alone, beside[::-1], strict=True):
        assert first.fidelity == second.fidelity
        assert all(torch.equal(first.tokens[key], second.tokens[key]) for key in first.tokens)


@pytest.mark.parametrize("name", METHODS)
def test_everything_stays_where_everything_fits(name):
    layout = make_layout(3)
    blocks = 3 * 2 * 13  # of 100 tokens in windows of 8, the last one ragged
    got = chosen(METHODS[name], ObservedPrompt(layout, 100), blocks * 2 * 8 * 8 * 4)
    assert all(kept.tolist() == list(range(100)) for kept in got.tokens.values())
    assert got.fidelity == 1.0


@pytest.mark.parametrize("kept_ratio", [0.06, 0.12, 0.5, 0.9])
@pytest.mark.parametrize("name", METHODS)
def test_little_of_the_budget_is_left_unused(name, kept_ratio):
    layout = make_layout(4)
    budget_bytes = int(kept_ratio * layout.full_bytes(403))
    got = chosen(METHODS[name], ObservedPrompt(layout, 403), budget_bytes)
    unit = 2 * 8 * 8 * 4 * (2 if METHODS[name].heads == "all" else 1)
    assert packed_bytes_of(layout, got, 403) > budget_bytes - unit


def test_heads_that_share_a_list_keep_the_same_tokens_and_others_need_not():
    prompt = ObservedPrompt(make_layout(1, num_kv_heads=3), 200)
    budget_bytes = prompt.layout.full_bytes(200) // 5
    shared = chosen(METHODS["tova"], prompt, budget_bytes).tokens
    assert torch.equal(shared[0, 0], shared[0, 1]) and torch.equal(shared[0, 0], shared[0, 2])
    each = chosen(METHODS["snapkv"], prompt, budget_bytes).tokens
    assert not torch.equal(each[0, 0], each[0, 1])


def test_a_budget_below_the_observation_window_keeps_the_last_of_it_and_what_it_voted_for():
    prompt = ObservedPrompt(make_layout(1), 300)
    got = chosen(METHODS["snapkv"], prompt, 2 * 2 * (2 * 8 * 8 * 4))  # 16 tokens a head; the window is 32
    for kept in got.tokens.values():
        assert kept.numel() == 16
        assert set(range(292, 300)) <= set(kept.tolist())
        assert (kept < 268).any()


def test_a_model_without_full_attention_keeps_what_its_windows_see():
    layout = make_layout(2, sliding={0: 16, 1: 16})
    got = chosen(METHODS["h2o"], ObservedPrompt(layout, 100), 0)
    assert got.tokens == {} and got.fidelity == 1.0
