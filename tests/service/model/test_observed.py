"""What a prefill keeps for selectors of its last queries, and of their attention where it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from asking import random_tokens
from tiny_models import save_tiny_model
from torch import Tensor

from windowkv_service.domain.requests import Task
from windowkv_service.kv.buffers import Arenas, Staging
from windowkv_service.model import attention
from windowkv_service.model.attention import Observed
from windowkv_service.model.loader import LoadedModel, ModelOptions, load
from windowkv_service.model.prompt_attention import Attended, Terms, prompt_attention
from windowkv_service.model.runner import Runner
from windowkv_service.selection import Observation
from windowkv_service.selection.base import WindowSelection
from windowkv_service.selection.windowkv import WindowKV

PROMPT = random_tokens(3, 150)
CHUNK = 64  # the last chunk has fewer tokens than observe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    directory = save_tiny_model(tmp_path_factory.mktemp("llama"), "llama")
    return load(ModelOptions(str(directory), "cpu", "auto", 8, None))


def telling(
    queries: Tensor, keys: Tensor, values: Tensor, terms: Terms, visible: Callable[[], Tensor]
) -> Attended:
    """Attention that tells its log-sum-exps, as a GPU's does."""
    attended = prompt_attention(queries, keys, values, terms, visible)
    repeated = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    logits = queries @ repeated.transpose(2, 3) * terms.scale
    return Attended(attended.output, logits.masked_fill(~visible(), float("-inf")).logsumexp(-1))


def prefilled(model: LoadedModel, observed: Observed) -> Staging:
    arenas = Arenas(
        model.layout, Arenas.blocks_that_fit(model.layout, 1), dtype=model.dtype, device=model.device
    )
    runner = Runner(model.module, model.layout, arenas, model.device)
    staging = Staging(model.layout, len(PROMPT), dtype=model.dtype, device=model.device)
    for first in range(0, len(PROMPT), CHUNK):
        runner.prefill(PROMPT[first : first + CHUNK], first, staging, observed)
    return staging


@pytest.mark.parametrize("task", [Task.LOCALIZATION, Task.AGGREGATION, Task.AUTO])
def test_windows_are_chosen_alike_whether_the_attention_tells_or_not(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch, task: Task
) -> None:
    selector = WindowKV()
    observed = Observed(selector.observed_layers(model.layout), selector.observation_size)
    monkeypatch.setattr(attention, "prompt_attention", telling)
    staging = prefilled(model, observed)
    told = Observation(
        observed.by_layer,
        lambda layer: staging.keys(layer, len(PROMPT)),
        len(PROMPT),
        model.scales,
        model.layout,
        lse=observed.lse,
    )
    assert {layer: lse.shape for layer, lse in told.lse.items()} == dict.fromkeys(
        observed.layers, (4, selector.observation_size)
    )
    found = replace(told, lse={})
    choices = [selector.select(each, budget_bytes=40_000, task=task) for each in (told, found)]
    assert isinstance(choices[0], WindowSelection)
    assert choices[0] == replace(choices[1], fidelity=choices[0].fidelity)
    assert choices[0].fidelity == pytest.approx(choices[1].fidelity, rel=1e-5)


def test_without_being_told_nothing_is_known(model: LoadedModel) -> None:
    observed = Observed([0], 20)
    prefilled(model, observed)
    assert observed.by_layer[0].shape == (4, 20, 16)
    assert observed.lse == {}


@pytest.mark.parametrize("is_told", [(True, False), (False, True)])
def test_what_is_known_of_some_of_the_queries_only_is_not_kept(is_told: tuple[bool, bool]) -> None:
    observed = Observed([0], 5)
    for number, told in enumerate(is_told):
        observed.see(0, torch.full((2, 3, 4), float(number)), torch.zeros(2, 3) if told else None)
    assert observed.lse == {}
    assert observed.by_layer[0][0, :, 0].tolist() == [0, 0, 1, 1, 1]


def test_of_more_queries_than_are_wanted_the_last_are_kept() -> None:
    observed = Observed([0], 4)
    for first in (0, 3):
        numbers = torch.arange(first, first + 3.0).expand(2, 3)
        observed.see(0, numbers[:, :, None], numbers)
    assert observed.lse[0].tolist() == [[2, 3, 4, 5]] * 2
    assert observed.by_layer[0][:, :, 0].tolist() == [[2, 3, 4, 5]] * 2
