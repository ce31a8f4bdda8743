"""Score against bytes: one curve per method, labelled at its end in its own colour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from windowkv_service.quality.plots.colours import FULL, colours
from windowkv_service.quality.plots.labels import spread
from windowkv_service.quality.result import Result
from windowkv_service.quality.summary import Score, by, mean_ratio, rows, suite_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 4.6  # percent of score from label to label
DODGE = 0.008  # how far curves that share an abscissa are moved apart, as a share of it
ROUND = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)  # shares to mark


class Point(NamedTuple):
    x: float
    score: Score


class Axis(NamedTuple):
    """What goes across: its name, and where a row's results lie on it."""

    name: str
    of: Callable[[Sequence[Result]], float]
    is_shared: bool  # many curves have points at the same places


DEVICE_BYTES = Axis(
    "held on the device while answering, share of the full cache",
    lambda results: mean_ratio(results, lambda one: one.stored_bytes_ratio),
    is_shared=False,
)
KEPT_RATIO = Axis("kept ratio asked for", lambda results: results[0].kept_ratio, is_shared=True)


def draw_curves(results: Sequence[Result], folder: Path) -> None:
    """scores-by-bytes.png and scores-by-kept-ratio.png: means over suites, a panel per visibility of the question."""
    _draw(results, DEVICE_BYTES, folder / "scores-by-bytes.png")
    _draw(results, KEPT_RATIO, folder / "scores-by-kept-ratio.png")


def _draw(results: Sequence[Result], axis: Axis, path: Path) -> None:
    from matplotlib.figure import Figure

    questions = by(results, lambda result: result.question)
    curves = {question: _curves(found, axis) for question, found in questions.items()}
    figure = Figure(figsize=(7.2 * len(curves), 5.4), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False, sharex=True, sharey=True)[0]
    every = (
        point.x
        for each in curves.values()
        for name, points in each.items()
        for point in points
        if name != "full"
    )
    _mark_ratios(panels[0], sorted(set(every)), axis)
    for panel, (question, found) in zip(panels, curves.items(), strict=True):
        _draw_panel(panel, found, axis)
        panel.set_title(f"question {question}", loc="left", fontweight="bold")
        panel.set_xlabel(axis.name)
    panels[0].set_ylabel("score, mean over suites (95 % interval)")
    figure.savefig(path, dpi=130)


def _draw_panel(panel: Axes, curves: dict[str, list[Point]], axis: Axis) -> None:
    others = {method: points for method, points in curves.items() if method != "full"}
    drawn = _moved_apart(others) if axis.is_shared else others
    palette = {**colours(list(others)), "full": FULL}
    panel.set_ylim(-3, 105)
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    for method, points in drawn.items():
        _draw_curve(panel, points, palette[method])
    ends = {method: (points[-1].x, points[-1].score.mean) for method, points in drawn.items()}
    if full := curves.get("full"):
        level = full[0].score.mean
        panel.axhline(level, color=FULL, linestyle=(0, (5, 3)), linewidth=1.2, zorder=1)
        ends["full"] = (panel.get_xlim()[1], level)
    _label(panel, ends, palette)


def _curves(results: Sequence[Result], axis: Axis) -> dict[str, list[Point]]:
    """Per method its points from left to right."""
    curves: dict[str, list[Point]] = {}
    for row, found in rows(results).items():
        curves.setdefault(row.method, []).append(Point(axis.of(found), suite_mean(found)))
    return {method: sorted(points) for method, points in curves.items()}


def _moved_apart(curves: dict[str, list[Point]]) -> dict[str, list[Point]]:
    """A little to the left or right, each by its own share."""
    middle = (len(curves) - 1) / 2
    shares = {method: 1 + DODGE * (place - middle) for place, method in enumerate(curves)}
    return {
        method: [Point(point.x * shares[method], point.score) for point in points]
        for method, points in curves.items()
    }


def _draw_curve(panel: Axes, points: Sequence[Point], colour: str) -> None:
    means = [point.score.mean for point in points]
    below = [point.score.mean - point.score.low for point in points]
    above = [point.score.high - point.score.mean for point in points]
    panel.errorbar(
        [point.x for point in points],
        means,
        yerr=(below, above),
        color=colour,
        marker="o",
        markersize=4.5,
        linewidth=1.6,
        elinewidth=1.0,
        capsize=0,
    )


def _mark_ratios(panel: Axes, places: Sequence[float], axis: Axis) -> None:
    """Ticks where the points are, if they share their places; else at round shares."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    panel.set_xscale("log")
    if not places:
        return
    low, high = places[0] / 1.25, places[-1] * 1.25
    round_ones = [share for share in ROUND if low <= share <= high]
    panel.set_xlim(low, high)
    panel.xaxis.set_major_locator(FixedLocator(list(places) if axis.is_shared else round_ones))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))


def _label(panel: Axes, ends: dict[str, tuple[float, float]], palette: dict[str, str]) -> None:
    """Names to the right of the panel, each on a thin line to its curve's end."""
    places = spread([level for _, level in ends.values()], GAP, 0.0, 103.0)
    for (method, end), place in zip(ends.items(), places, strict=True):
        line = {"color": palette[method], "linewidth": 0.6, "alpha": 0.6, "relpos": (0.0, 0.5), "shrinkB": 3}
        panel.annotate(
            method,
            xy=end,
            xytext=(1.03, place),
            textcoords=panel.get_yaxis_transform(),
            color=palette[method],
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", **line},
        )
