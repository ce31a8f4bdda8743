"""The page that reports quality shows the committed results and no others."""

from __future__ import annotations

from house_plan import ROOT

from windowkv_service.quality import report
from windowkv_service.quality.suites import seed_kind
from windowkv_service.quality.tables import render

RESULTS = ROOT / "benchmarks" / "results"


def test_the_page_shows_the_tables_of_the_results_beside_it() -> None:
    shown = render(*report.read(RESULTS / "quality"))
    assert shown == (RESULTS / "quality" / "table.md").read_text(encoding="utf-8")
    assert shown in (RESULTS / "QUALITY.md").read_text(encoding="utf-8")


def test_what_is_reported_was_made_on_reporting_seeds_with_every_reference() -> None:
    results, facts = report.read(RESULTS / "quality")
    assert seed_kind(int(str(facts["seed"]).split()[0])) == "reporting"
    for question in ("hidden", "visible"):
        methods = {result.method for result in results if result.question == question}
        assert {"full", "random", "streamingllm"} <= methods
