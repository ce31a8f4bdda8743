"""What the runner shows to methods: tokens repeated behind a prompt, and how the model turns queries and keys."""

from __future__ import annotations

import pytest
import torch
from asking import random_tokens
from tiny_models import ARCHITECTURES, save_tiny_model
from torch import Tensor

from windowkv_service.kv.buffers import Arenas, Staging
from windowkv_service.model.attention import Observed
from windowkv_service.model.loader import LoadedModel, ModelOptions, load
from windowkv_service.model.runner import Runner

PROMPT, REPEATED = random_tokens(1, 50), random_tokens(2, 13)


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    directory = save_tiny_model(tmp_path_factory.mktemp(request.param), request.param)
    return load(ModelOptions(str(directory), "cpu", "auto", 8, None))


@pytest.fixture
def runner(model: LoadedModel) -> Runner:
    arenas = Arenas(
        model.layout, Arenas.blocks_that_fit(model.layout, 1), dtype=model.dtype, device=model.device
    )
    return Runner(model.module, model.layout, arenas, model.device)


def staged(model: LoadedModel, runner: Runner, token_ids: list[int], observed: Observed) -> Staging:
    staging = Staging(model.layout, len(token_ids), dtype=model.dtype, device=model.device)
    runner.prefill(token_ids, 0, staging, observed)
    return staging


def test_repeated_tokens_are_seen_as_those_of_a_longer_prompt_and_nothing_of_them_is_kept(
    model: LoadedModel, runner: Runner
) -> None:
    layers = range(model.num_layers)
    staging = staged(model, runner, PROMPT, Observed((), 0))
    before = staging.tensor.clone()
    seen = runner.repeat(REPEATED, len(PROMPT), staging, layers)
    assert torch.equal(staging.tensor, before)
    observed = Observed(layers, len(REPEATED))
    longer = staged(model, runner, PROMPT + REPEATED, observed)
    for layer in layers:
        queries, keys = seen[layer]
        assert torch.allclose(queries, observed.by_layer[layer], atol=1e-4)
        assert torch.allclose(keys, longer.keys(layer, len(PROMPT + REPEATED))[len(PROMPT) :], atol=1e-4)


def test_the_same_token_at_two_places_has_one_key_once_it_is_turned_back(
    model: LoadedModel, runner: Runner
) -> None:
    """Of a prompt that is one token over and over every layer makes the same key, but for the place."""
    places = torch.tensor([0, 7, 49])
    staging = staged(model, runner, [5] * len(PROMPT), Observed((), 0))
    turned = staging.keys(first_selectable(model), len(PROMPT))[places]
    rotary = runner.rotary
    assert rotary is not None
    cos, sin = rotary(places)
    back = unrotated(turned, cos, sin)
    assert torch.allclose(back[0], back[1], atol=1e-4)
    assert torch.allclose(back[0], back[2], atol=1e-4)


def first_selectable(model: LoadedModel) -> int:
    """The layers that methods choose for; sliding ones may turn by a table of their own."""
    groups = model.layout.selectable_groups or model.layout.groups
    return groups[0].layers[0]


def unrotated(keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """keys [m, heads, head_dim], turned back by cos and sin [m, rotary_dim]."""
    size = cos.shape[1]
    turned, rest = keys[..., :size], keys[..., size:]
    half = torch.cat([turned[..., size // 2 :], -turned[..., : size // 2]], dim=-1)
    return torch.cat([turned * cos[:, None] + half * sin[:, None], rest], dim=-1)
