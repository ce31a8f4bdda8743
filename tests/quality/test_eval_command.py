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
ALONE = ("--no-baselines", "--question", "hidden")


def run(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    assert main([*SMALL, *options]) == 0
    results = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert all(set(result) == KEYS for result in results)
    return list(results)


def test_a_small_run_tells_a_good_cache_from_a_bad_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = run(capsys, "--method", "windowkv", "--out", str(tmp_path))
    scores = {(one["method"], one["question"]): one["score"] for one in results}
    bytes_ratios = {(one["method"], one["question"]): one["stored_bytes_ratio"] for one in results}
    assert {method for method, _ in scores} == {"full", "windowkv", "random", "streamingllm"}
    assert [one["samples"] for one in results] == [10] * 8
    for question in ("hidden", "visible"):
        assert scores["full", question] >= 90 and scores["streamingllm", question] <= 50
        assert scores["windowkv", question] >= 90
        assert 1.0 <= bytes_ratios["full", question] < 1.05
        assert bytes_ratios["streamingllm", question] <= 0.12
        assert bytes_ratios["windowkv", question] <= 0.12
    assert {path.name for path in tmp_path.iterdir()} == {
        "answers.jsonl",
        "results.json",
        "results.csv",
        "table.md",
        "scores-by-bytes.png",
        "scores-by-kept-ratio.png",
    }


def test_a_running_worker_is_measured_and_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as service:
        options = (*ALONE, "--method", "windowkv", "--method", "full", "--target", service.target)
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
        (["--suite", "longbench:/nowhere"], "/nowhere: no file of LongBench there"),
        (["--resume"], "--resume needs the --out"),
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


def test_a_finished_run_can_go_on_with_another_method(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n## Tables\n", encoding="utf-8")
    with running() as service:
        options = (*ALONE, "--target", service.target, "--out", str(tmp_path))
        run(capsys, *options, "--method", "random")
        first = (tmp_path / "answers.jsonl").read_text(encoding="utf-8")
        results = run(
            capsys, *options, "--method", "random", "--method", "full", "--resume", "--page", str(page)
        )
    assert [one["method"] for one in results] == ["random", "full"]
    assert (tmp_path / "answers.jsonl").read_text(encoding="utf-8").startswith(first)
    assert (tmp_path / "table.md").read_text(encoding="utf-8") in page.read_text(encoding="utf-8")


def test_answers_of_another_seed_are_not_gone_on_with(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with running() as service:
        options = (*ALONE, "--method", "random", "--target", service.target, "--out", str(tmp_path))
        run(capsys, *options)
        assert main([*SMALL, *options, "--seed", "2", "--resume"]) == 1
    assert "is of another run" in capsys.readouterr().err


def test_published_files_are_asked_as_they_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    qasper = {"input": "What is it?", "context": "It is amber.", "answers": ["amber"], "all_classes": None}
    chains = {
        "input": "VAR AB = 7 VAR CD = VAR AB\nQuestion: Find all variables that are assigned the value 7"
    }
    (tmp_path / "qasper.jsonl").write_text(json.dumps(qasper), encoding="utf-8")
    (tmp_path / "vt.jsonl").write_text(json.dumps({**chains, "outputs": ["AB", "CD"]}), encoding="utf-8")
    suites = ("--suite", f"longbench:{tmp_path}", "--suite", f"ruler-files:{tmp_path}")
    assert main(["eval", *suites, *ALONE, "--method", "full", "--json"]) == 0
    results = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert [(one["suite_task"], one["samples"]) for one in results] == [
        ("longbench/qasper", 1),
        ("ruler-files/vt", 1),
    ]
