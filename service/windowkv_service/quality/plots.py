"""Results as pictures. matplotlib comes with the bench extra and is loaded when a picture is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from windowkv_service.quality.result import Result
from windowkv_service.quality.suites.niah import DEPTHS
from windowkv_service.quality.table import grids, rows, suite_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRIDS_PER_ROW = 4


def draw_scores(results: Sequence[Result], path: Path) -> None:
    """Mean score over suites against the kept ratio, one panel per visibility of the question."""
    from matplotlib.figure import Figure

    questions = list(dict.fromkeys(result.question for result in results))
    figure = Figure(figsize=(5.5 * len(questions), 4.2), layout="constrained")
    panels = figure.subplots(1, len(questions), squeeze=False, sharey=True)[0]
    for panel, question in zip(panels, questions, strict=True):
        _draw_panel(panel, [result for result in results if result.question == question])
        panel.set(title=f"question {question}", xlabel="kept ratio", ylim=(-3, 103))
    panels[0].set_ylabel("exact answers, % (mean over suites)")
    figure.savefig(path, dpi=120)


def _draw_panel(panel: Axes, results: Sequence[Result]) -> None:
    points: dict[str, list[tuple[float, float]]] = {}
    for row, found in rows(results).items():
        points.setdefault(row.method, []).append((row.kept_ratio, suite_mean(found)))
    for method, line in points.items():
        if method == "full":
            panel.axhline(line[0][1], color="black", linestyle="--", label=method)
        else:
            panel.plot(*zip(*sorted(line), strict=True), marker="o", label=method)
    panel.grid(alpha=0.3)
    panel.legend()


def draw_grids(results: Sequence[Result], path: Path) -> None:
    """The heat maps of niah, one per arm: document length across, depth of the needle down. Nothing without niah."""
    from matplotlib.figure import Figure

    found = grids(results)
    if not found:
        return
    lengths = sorted({length for grid in found.values() for length, _ in grid})
    num_rows = ceil(len(found) / GRIDS_PER_ROW)
    figure = Figure(figsize=(3.1 * GRIDS_PER_ROW, 3.0 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, GRIDS_PER_ROW, squeeze=False).flat
    for panel, (title, grid) in zip(panels, found.items(), strict=False):
        scores = [[grid.get((length, depth), float("nan")) for length in lengths] for depth in DEPTHS]
        panel.imshow(scores, vmin=0, vmax=100, cmap="RdYlGn", aspect="auto")
        panel.set_title(title.replace(", question", "\nquestion"), fontsize=8)
        panel.set_xticks(range(len(lengths)), [f"{length}" for length in lengths], fontsize=7)
        panel.set_yticks(range(len(DEPTHS)), [f"{depth} %" for depth in DEPTHS], fontsize=7)
        _write_scores(panel, scores)
    for panel in list(figure.axes)[len(found) :]:
        panel.set_visible(False)
    figure.savefig(path, dpi=110)


def _write_scores(panel: Axes, scores: Sequence[Sequence[float]]) -> None:
    for down, line in enumerate(scores):
        for across, score in enumerate(line):
            if score == score:  # not a number where the cell was not run
                panel.text(across, down, f"{score:.0f}", ha="center", va="center", fontsize=7)
