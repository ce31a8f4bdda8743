"""The pages that report quality show the committed results and no others."""

from __future__ import annotations

import pytest
from house_plan import ROOT

from windowkv_service.quality import report
from windowkv_service.quality.suites import seed_kind
from windowkv_service.quality.tables import render

RESULTS = ROOT / "benchmarks" / "results"


PAGES = {"hidden": ("quality", "QUALITY.md"), "visible": ("quality-visible", "QUALITY-visible.md")}


@pytest.mark.parametrize("question", PAGES)
def test_a_page_shows_the_tables_of_the_results_beside_it(question: str) -> None:
    folder, page = PAGES[question]
    shown = render(*report.read(RESULTS / folder))
    assert shown == (RESULTS / folder / "table.md").read_text(encoding="utf-8")
    assert shown in (RESULTS / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("question", PAGES)
def test_what_is_reported_was_made_on_reporting_seeds_with_every_reference(question: str) -> None:
    results, facts = report.read(RESULTS / PAGES[question][0])
    assert seed_kind(int(str(facts["seed"]).split()[0])) == "reporting"
    assert {result.question for result in results} == {question}
    assert {"full", "random", "streamingllm"} <= {result.method for result in results}
