"""Results as files, tables and pictures."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from windowkv_service.quality import report
from windowkv_service.quality.result import Result
from windowkv_service.quality.tables import insert, render

FULL = Result(
    suite_task="single/2000", method="full", question="hidden", kept_ratio=1.0, stored_bytes_ratio=1.0, score=100.0,
    ci_low=100.0, ci_high=100.0, samples=10, documents=2, entry_bytes_ratio=1.0,
    tail_bytes_ratio=0.01, fidelity=1.0, cut=0,
)  # fmt: skip
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
    for name in ("scores-by-bytes.png", "scores-by-kept-ratio.png", "niah-full.png", "niah-windowkv.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_without_the_grid_there_is_no_heat_map(tmp_path: Path) -> None:
    report.write(tmp_path, [FULL, OURS], FACTS)
    assert not list(tmp_path.glob("niah*"))


def test_the_table_compares_with_the_full_cache() -> None:
    lines = render(RESULTS, FACTS).splitlines()
    ours = next(line for line in lines if line.startswith("| windowkv | 0.12"))
    assert ours == (
        "| windowkv | 0.12 | 1.000 | 0.200 | 0.010 "
        "| 90.0 (80–100) | 75.0 (57–100) | 82.5 (72–96) | 82.5% | 75.0% niah |"
    )


def test_the_grid_has_a_column_for_each_cell() -> None:
    shown = render(RESULTS, FACTS)
    assert "| method | kept | 1000: 0 % | 1000: 100 % |" in shown
    assert "| windowkv | 0.12 | 50 | 100 |" in shown


def test_ruler_has_a_table_of_its_tasks_and_one_of_its_lengths() -> None:
    asked = [
        replace(FULL, suite_task=f"ruler/{name}/{length}")
        for name in ("vt", "cwe")
        for length in (1000, 2000)
    ]
    shown = render([replace(asked[0], score=50.0, ci_low=40.0), *asked[1:]], FACTS)
    assert (
        "| method | kept | vt | cwe |" in shown and "| full | 1 | 75.0 (70–100) | 100.0 (100–100) |" in shown
    )
    assert "| method | kept | 1000 tokens | 2000 tokens |" in shown


def test_longbench_is_shown_by_task_group() -> None:
    shown = render(
        [replace(FULL, suite_task=f"longbench/{name}") for name in ("hotpotqa", "lcc", "trec_e")], FACTS
    )
    assert "| method | kept | multi-document QA | code | few-shot |" in shown


def test_prompts_that_lost_their_middle_are_counted() -> None:
    assert "3 of 20 answers are to prompts" in render([replace(FULL, cut=3), OURS], FACTS)
    assert "without their middle" not in render(RESULTS, FACTS)


def test_tables_go_under_the_heading_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Quality\n\nMuch was found.\n\n## Tables\n\nold", encoding="utf-8")
    insert(page, "new\n")
    assert page.read_text(encoding="utf-8") == "# Quality\n\nMuch was found.\n\n## Tables\n\nnew\n"


def test_a_page_without_the_heading_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Quality\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no line '## Tables'"):
        insert(page, "new\n")


def test_the_line_of_json_says_what_was_agreed() -> None:
    assert set(json.loads(json.dumps(OURS.public()))) == {
        "suite_task", "method", "question", "kept_ratio", "stored_bytes_ratio", "score", "ci_low", "ci_high", "samples",
    }  # fmt: skip


@pytest.mark.parametrize("question", ["hidden", "visible"])
def test_each_visibility_has_its_table(question: str) -> None:
    shown = render([replace(one, question=question) for one in RESULTS], FACTS)
    assert [line for line in shown.splitlines() if line.startswith("### ")] == [f"### Question {question}"]
