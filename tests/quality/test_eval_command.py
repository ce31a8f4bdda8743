"""windowkv eval from end to end: the command line, a real worker, the built-in model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from running_service import running

from windowkv_client.cli import main

KEYS = {
    "suite_task", "method", "question", "kept_ratio", "stored_bytes_ratio", "score", "ci_low", "ci_high", "samples",
}  # fmt: skip
SMALL = ["eval", "--suite", "single/1000", "--samples", "2", "--seed", "1", "--kept-ratio", "0.12", "--json"]


def run(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    assert main([*SMALL, *options]) == 0
    results = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert all(set(result) == KEYS for result in results)
    return list(results)


def test_a_small_run_tells_a_good_cache_from_a_bad_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = run(
        capsys, "--method", "full", "--method", "windowkv", "--method", "streamingllm", "--out", str(tmp_path)
    )
    scores = {(one["method"], one["question"]): one["score"] for one in results}
    bytes_ratios = {(one["method"], one["question"]): one["stored_bytes_ratio"] for one in results}
    assert [one["samples"] for one in results] == [10] * 6
    for question in ("hidden", "visible"):
        assert scores["full", question] >= 90 and scores["streamingllm", question] <= 50
        assert scores["windowkv", question] >= 90
        assert 1.0 <= bytes_ratios["full", question] < 1.05
        assert bytes_ratios["streamingllm", question] <= 0.12
        assert bytes_ratios["windowkv", question] <= 0.12
    assert {path.name for path in tmp_path.iterdir()} == {
        "results.json",
        "results.csv",
        "table.md",
        "scores.png",
    }


def test_a_running_worker_is_measured_and_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as service:
        options = (
            "--method",
            "windowkv",
            "--method",
            "full",
            "--question",
            "hidden",
            "--target",
            service.target,
        )
        first = run(capsys, *options)
        assert run(capsys, *options) == first
        assert service.ask(lambda resources: list(resources.store.entries())) == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--suite", "sung"], "unknown suite 'sung'"),
        (["--method", "windowkv@never"], "after the @"),
        (["--kept-ratio", "0"], "a kept ratio is in (0, 1]"),
        (["--samples", "0"], "at least 1"),
    ],
)
def test_a_wrong_command_is_refused_at_once(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["eval", *options])
    except SystemExit as exit_:
        status = int(str(exit_.code))
    assert status == 2 and complaint in capsys.readouterr().err


def test_a_method_that_the_worker_does_not_know_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as service:
        assert main([*SMALL, "--method", "telepathy", "--target", service.target]) == 1
    assert "unknown method 'telepathy'; known: " in capsys.readouterr().err
