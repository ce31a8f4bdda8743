"""The comparison with kvpress: our half of it, and the page; kvpress itself runs in `make compare-kvpress` alone."""

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield {
            name: importlib.import_module(name)
            for name in ("compare_kvpress", "press_cases", "press_table", "read_prompt")
        }
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("read"), "llama")


def read(benchmarks, directory, ids, window_size):
    reading = benchmarks["read_prompt"]
    return reading.ReadPrompt(reading.load_by_layer(directory, window_size), ids)


def test_repeated_tokens_see_the_whole_prompt_and_leave_it_as_it_was(benchmarks, directory):
    ids = list(range(40))
    prompt = read(benchmarks, directory, ids, 1)
    longer = read(benchmarks, directory, [*ids, 7, 8, 9], 1)
    before = prompt.observation(1).keys(2).clone()
    again = prompt.observation(1).repeat([7, 8, 9])
    assert set(again) == {0, 1, 2, 3}
    torch.testing.assert_close(again[2].queries, longer.observation(3).queries[2], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(again[2].keys, longer.observation(3).keys(2)[40:], atol=1e-5, rtol=1e-4)
    assert torch.equal(prompt.observation(1).keys(2), before)


def test_every_case_keeps_the_share_that_the_press_would(benchmarks, directory):
    compare = benchmarks["compare_kvpress"]
    torch.manual_seed(0)
    ids = torch.randint(0, 250, (128,)).tolist()
    for case in benchmarks["press_cases"].CASES:
        prompt = read(benchmarks, directory, ids, case.window_size)
        kept = compare.kept_by(case.ours, prompt, 0.5)
        assert kept.shape == (4, 2, 128)
        assert kept.sum() == kept.numel() // 2, case.name
        told = torch.ones(4, 2, dtype=torch.bool)
        assert compare.agreement(kept, kept, told) == 1.0
        assert compare.agreement(~kept, kept, told) == 0.0


def test_a_head_that_cannot_tell_what_stayed_has_no_say(benchmarks):
    ours = torch.tensor([[[True, False, True, False], [True, True, False, False]]])
    theirs = ours.clone()
    theirs[0, 1] = True  # its keys are equal: all of them seem to be there still
    agreement = benchmarks["compare_kvpress"].agreement
    assert agreement(theirs, ours, torch.tensor([[True, True]])) == pytest.approx(4 / 6)
    assert agreement(theirs, ours, torch.tensor([[True, False]])) == 1.0


def test_the_page_shows_means_and_the_lowest(benchmarks):
    row = {
        "method": "SnapKV",
        "setting": "plain",
        "why": "",
        "models": {
            "one": {"agreement": {"0.5": 1.0, "0.25": 0.5}, "score_difference": 2e-7},
            "two": {"agreement": {"0.5": 0.5, "0.25": 0.25}, "score_difference": None},
        },
    }
    versions = {"torch": "1", "transformers": "2"}
    found = {"num_tokens": 9, "theirs": {**versions, "kvpress": "3"}, "ours": versions, "rows": [row]}
    page = benchmarks["press_table"].render({**found, "left_out": {"one": 0, "two": 3}})
    assert "| SnapKV | plain | 75.00 % | 37.50 % | 25.00 % | 2e-07 | – |" in page
    assert "kvpress 3" in page and "Models: one, two." in page and "left out (3 of the two)" in page
    assert "left out (none)" in benchmarks["press_table"].render({**found, "left_out": {"one": 0, "two": 0}})


def test_cases_name_presses_once(benchmarks):
    cases = benchmarks["press_cases"].CASES
    assert len({case.name for case in cases}) == len(cases)
    assert all(dataclasses.is_dataclass(case) and case.theirs["press"].endswith("Press") for case in cases)
