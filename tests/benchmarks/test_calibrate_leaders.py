"""The calibration of leaders: its two passes are the model's own arithmetic, and it picks what it measured best."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from observed_prompts import make_layout
from transformers import AutoModelForCausalLM

from windowkv_service.model.builtin.tokenizer import build_tokenizer
from windowkv_service.model.builtin.train import build_model
from windowkv_service.model.loader import LoadedModel, ModelOptions, load
from windowkv_service.selection import Leader, QuestionProfile
from windowkv_service.selection.windowkv import published

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NUM_TOKENS = 150


@pytest.fixture(scope="module")
def calibration() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("leader_calibration")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    directory = tmp_path_factory.mktemp("calibrated")
    torch.manual_seed(0)
    tokenizer = build_tokenizer(8192)
    build_model(tokenizer, 32, 4, 2).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return load(ModelOptions(str(directory), "cpu", "float32", 16, None))


def random_ids(count: int, seed: int) -> list[int]:
    return torch.randint(300, 900, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_an_answer_over_all_windows_is_that_of_transformers(
    calibration: ModuleType, model: LoadedModel
) -> None:
    token_ids, question_ids = random_ids(NUM_TOKENS, 1), random_ids(13, 2)
    document = calibration.AskedDocument(model, token_ids, published(), 64)
    everything = [tuple(model.layout.full_windows(group, NUM_TOKENS)) for group in model.layout.groups]
    plain = AutoModelForCausalLM.from_pretrained(model.directory)
    prompt = torch.tensor([token_ids + question_ids])
    expected = plain.generate(prompt, max_new_tokens=6, do_sample=False)[0, prompt.shape[1] :].tolist()
    assert document.answer(question_ids, everything, 6) == expected
    assert document.answer(question_ids, everything, 6) == expected  # the first answer left nothing behind


def test_the_first_pass_hears_every_layer(calibration: ModuleType, model: LoadedModel) -> None:
    document = calibration.AskedDocument(model, random_ids(NUM_TOKENS, 1), published(), 64)
    before = document.published(published(), 0)
    heard = document.question_queries(random_ids(13, 2), before.windows)
    assert sorted(heard) == [0, 1, 2, 3]
    assert {queries.shape for queries in heard.values()} == {(2, 13, 16)}


def test_candidates_cover_every_leader_and_fit_the_layout(calibration: ModuleType) -> None:
    layout = make_layout(6, group_size=2)
    profiles = [profile for _, profile in calibration.leader_candidates(layout)]
    assert [p.layers for p in profiles[:6]] == [(0,), (1,), (2,), (3,), (4,), (5,)]
    assert (0, 4) in [profile.layers for profile in profiles]
    for profile in profiles:
        profile.check(layout)


def test_the_fewest_leaders_win_among_those_as_good_as_the_full_cache(calibration: ModuleType) -> None:
    def row(name: str, num_leaders: int, num_right: int) -> object:
        profile = QuestionProfile(tuple(Leader(layer, (layer,)) for layer in range(num_leaders)))
        return calibration.Row(name, profile, {0.12: calibration.Tally(num_right, 1000, 500.0)})

    full = calibration.Row("full cache", None, {1.0: calibration.Tally(950, 1000, 1000.0)})
    rows = [row("all", 4, 952), row("one", 1, 945), row("two", 2, 949), row("worse", 1, 700)]
    assert calibration.best_leaders(rows, full) is rows[1]
    assert calibration.best_leaders([rows[3], rows[2]], full) is rows[2]
