"""Results as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from windowkv_service.quality import plots
from windowkv_service.quality.result import COLUMNS, Result
from windowkv_service.quality.tables import render


def write(folder: Path, results: Sequence[Result], facts: Mapping[str, object]) -> None:
    """results.json, results.csv, table.md; then the pictures, or ModuleNotFoundError without matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = ",\n".join("  " + json.dumps(asdict(result)) for result in results)
    (folder / "results.json").write_text(
        f'{{"facts": {json.dumps(dict(facts))},\n "results": [\n{listed}\n]}}\n', encoding="utf-8"
    )
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(asdict(result) for result in results)
    (folder / "table.md").write_text(render(results, facts), encoding="utf-8")
    plots.draw_curves(results, folder)
    plots.draw_heat_maps(results, folder)


def read(folder: Path) -> tuple[list[Result], dict[str, object]]:
    """What write wrote: results and facts."""
    raw = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return [Result(**each) for each in raw["results"]], raw["facts"]
