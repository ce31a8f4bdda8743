"""Results as files, tables and pictures."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from windowkv_service.quality import report
from windowkv_service.quality.result import Result
from windowkv_service.quality.table import render, suite_mean

FULL = Result("single/2000", "full", "hidden", 1.0, 1.0, 100.0, 100.0, 100.0, 10, 1.0, 1.0)
OURS = replace(FULL, method="windowkv", kept_ratio=0.12, stored_bytes_ratio=0.2, score=90.0, ci_low=80.0)
CELLS = [
    replace(one, suite_task=f"niah/1000/{depth}", score=score)
    for one, scores in ((FULL, (100.0, 100.0)), (OURS, (50.0, 100.0)))
    for depth, score in zip((0, 100), scores, strict=True)
]
RESULTS = [FULL, OURS, *CELLS]
FACTS: dict[str, object] = {"seed": "1000 (reporting)"}


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    report.write(tmp_path, RESULTS, FACTS)
    assert report.read(tmp_path) == (RESULTS, FACTS)
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        assert [float(row["score"]) for row in csv.DictReader(file)] == [one.score for one in RESULTS]


def test_pictures_are_drawn(tmp_path: Path) -> None:
    report.write(tmp_path, RESULTS, FACTS)
    for name in ("scores.png", "niah.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_without_the_grid_there_is_no_heat_map(tmp_path: Path) -> None:
    report.write(tmp_path, [FULL, OURS], FACTS)
    assert not (tmp_path / "niah.png").exists()


def test_a_suite_with_many_tasks_weighs_no_more_than_another() -> None:
    assert suite_mean([OURS, *CELLS[2:]]) == (90.0 + 75.0) / 2


def test_the_table_compares_with_the_full_cache() -> None:
    lines = render(RESULTS, FACTS).splitlines()
    ours = next(line for line in lines if line.startswith("| windowkv | 0.12"))
    assert ours == "| windowkv | 0.12 | 1.000 | 0.200 | 90.0 (80–100) | 75.0 | 82.5 | 82.5% |"
    assert "| windowkv, kept 0.12, question hidden | 50 | – | – | – | 100 |" in lines


def test_the_line_of_json_says_what_was_agreed() -> None:
    assert set(json.loads(json.dumps(OURS.public()))) == {
        "suite_task", "method", "question", "kept_ratio", "stored_bytes_ratio", "score", "ci_low", "ci_high", "samples",
    }  # fmt: skip


@pytest.mark.parametrize("question", ["hidden", "visible"])
def test_each_visibility_has_its_table(question: str) -> None:
    shown = render([replace(one, question=question) for one in RESULTS], FACTS)
    assert shown.count("### Question") == 1 and f"### Question {question}" in shown
