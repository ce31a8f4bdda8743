"""The grid of niah: document length across, depth of the fact down, a picture per method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from windowkv_service.quality.result import Result
from windowkv_service.quality.suites.niah import cell
from windowkv_service.quality.summary import by

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

PANEL_INCHES = (2.4, 2.6)
DARK = (25, 85)  # scores outside are on dark colours and take white ink


def draw_heat_maps(results: Sequence[Result], folder: Path) -> None:
    """niah-METHOD.png for each method that was asked niah: kept ratios across, visibilities of the question down."""
    found = [result for result in results if result.suite == "niah"]
    for method, of_method in by(found, lambda result: result.method).items():
        _draw(method, of_method, folder / f"niah-{method}.png")


def _draw(method: str, results: Sequence[Result], path: Path) -> None:
    from matplotlib.figure import Figure

    questions = by(results, lambda result: result.question)
    ratios = by(results, lambda result: f"{result.kept_ratio:g}")
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * len(ratios) + 1.6, height * len(questions) + 0.5), layout="constrained")
    panels = figure.subplots(len(questions), len(ratios), squeeze=False)
    figure.suptitle(f"{method}: Needle in a Haystack", fontsize=11, fontweight="bold")
    for line, (question, asked) in zip(panels, questions.items(), strict=True):
        for panel, ratio in zip(line, ratios, strict=True):
            image = _draw_panel(panel, [one for one in asked if f"{one.kept_ratio:g}" == ratio])
            panel.set_title(f"question {question}, kept {ratio}", fontsize=8.5)
    for line in panels:
        line[0].set_ylabel("depth of the fact", fontsize=8.5)
    for panel in panels[-1]:
        panel.set_xlabel("tokens of document", fontsize=8.5)
    bar = figure.colorbar(image, ax=panels, shrink=0.8, aspect=30)
    bar.set_label("answers exactly right, %", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    figure.savefig(path, dpi=130)


def _draw_panel(panel: Axes, results: Sequence[Result]) -> AxesImage:
    """Cells that were not run stay white."""
    scores = {cell(result.suite_task): result.score for result in results}
    lengths = sorted({length for length, _ in scores})
    depths = sorted({depth for _, depth in scores})
    grid = [[scores.get((length, depth), float("nan")) for length in lengths] for depth in depths]
    image = panel.imshow(grid, vmin=0, vmax=100, cmap="RdYlBu", aspect="auto")
    panel.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], fontsize=8)
    panel.set_yticks(range(len(depths)), [f"{depth} %" for depth in depths], fontsize=8)
    panel.tick_params(length=0)
    for down, depth in enumerate(depths):
        for across, length in enumerate(lengths):
            if (length, depth) in scores:
                _write(panel, across, down, scores[length, depth])
    return image


def _write(panel: Axes, across: int, down: int, score: float) -> None:
    ink = "black" if DARK[0] <= score <= DARK[1] else "white"
    panel.text(across, down, f"{score:.0f}", ha="center", va="center", fontsize=8.5, color=ink)
