"""The table of models: which rows there are, their goals, and how they are written down."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bar_chart import Bar, draw
from model_measures import Result
from model_shapes import Shape, Sizes


@dataclass(frozen=True)
class Kind:
    """What one row says. is_rate: tokens per second; is_share: of the time; else a time. goal: of the ratio."""

    what: str
    compared_with: str
    ratio: str
    goal: float | None = None
    is_upper: bool = False
    is_rate: bool = False
    is_share: bool = False


def kinds(shape: Shape, sizes: Sizes) -> dict[str, Kind]:
    """Every row of a model, by the name of its result."""
    kept = f"kept {sizes.kept_ratio}"
    num_full = max(1, int(sizes.batch * sizes.kept_ratio))
    rows = {
        "step": Kind(
            f"decode step, batch 1, document of {sizes.document}, {kept}",
            "bytes of weights and kept KV over copy bandwidth",
            "of the floor",
            0.80,
        ),
        "idle": Kind("the same: GPU idle between kernels", "", "", 0.05, is_upper=True, is_share=True),
        "throughput": Kind(
            f"decode, batch {sizes.batch}, documents of {sizes.document}, {kept}",
            f"full caches in the same memory, batch {num_full}",
            "times",
            5.0,
            is_rate=True,
        ),
        "generate": Kind(
            "the same",
            f"transformers generate, static cache, not compiled, batch {num_full}",
            "times",
            is_rate=True,
        ),
        "prefill": Kind(
            f"prefill of a document of {sizes.document}, chunks of {sizes.chunk}",
            "transformers with its own attention and cache, the same chunks",
            "times",
            is_rate=True,
        ),
        "attention": Kind(
            f"attention of one layer: the last {sizes.chunk} of {sizes.document} tokens over all of them",
            "its FLOPs at the rate of a large matrix product",
            "of the floor",
        ),
        "restore": Kind(
            f"restore of a document of {sizes.document}, {kept}, from host memory, without checksums",
            "one copy of as many bytes",
            "of the copy",
            0.80,
        ),
        "verified": Kind(
            "the same out of the host tier, each block verified",
            "one copy of as many bytes",
            "of the copy",
            0.80,
        ),
    }
    for prefix, num_tokens, goal in _documents(shape, sizes):
        question = f"first token of a question on a document of {num_tokens}"
        rows[f"{prefix}warm"] = Kind(
            f"{question}: all blocks from host memory", "prefilled first", "times", goal
        )
        rows[f"{prefix}resident"] = Kind(f"{question}: blocks on the device", "prefilled first", "times")
        most = 0.01 if num_tokens == sizes.long_document else None
        rows[f"{prefix}compression"] = Kind(
            f"compression of a document of {num_tokens}, leader keys included",
            "its prefill",
            "of it",
            most,
            is_upper=True,
        )
    return rows


def _documents(shape: Shape, sizes: Sizes) -> Iterator[tuple[str, int, float]]:
    yield "document ", sizes.document, 50.0
    if shape.long_document:
        yield "long document ", sizes.long_document, 200.0


@dataclass(frozen=True)
class Row:
    model: str
    what: str
    compared_with: str
    unit: str
    value: float | None
    compared: float | None
    ratio: float | None
    goal: str
    goal_share: float | None  # of the goal that was reached; None without a goal or a measurement


def row(shape: Shape, kind: Kind, result: Result | None) -> Row:
    value, compared, ratio = (None, None, None)
    if result is not None:
        value, compared, ratio = result.value, result.compared, result.ratio
    unit = "tokens/s" if kind.is_rate else "%" if kind.is_share else "ms"
    factor = {"tokens/s": 1.0, "%": 100.0, "ms": 1e3}[unit]
    share = None
    if ratio is not None and kind.goal is not None:
        share = kind.goal / max(ratio, 1e-9) if kind.is_upper else ratio / kind.goal
    return Row(
        shape.name,
        kind.what,
        kind.compared_with,
        unit,
        None if value is None else factor * value,
        None if compared is None else factor * compared,
        ratio,
        _goal(kind),
        share,
    )


def _goal(kind: Kind) -> str:
    if kind.goal is None:
        return "–"
    sign = "≤" if kind.is_upper else "≥"
    return f"{sign} {kind.goal:g} times" if kind.ratio == "times" else f"{sign} {100 * kind.goal:g} %"


def render(rows: Sequence[Row], machine: dict[str, str]) -> str:
    lines = [
        "# Models of real shape on a GPU",
        "",
        "By `benchmarks/gpu.sh`. Random weights, all layers. A step is a CUDA graph with sampling; the next token goes "
        "back on the device.",
        "",
        "| machine | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in machine.items()),
        "",
        "| model | measured | value | compared with | value | ratio | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        cells = [
            each.model,
            each.what,
            number(each.value, each.unit),
            each.compared_with or "–",
            number(each.compared, each.unit) if each.compared_with else "–",
            "not measured" if each.ratio is None else f"{each.ratio:.3g}",
            each.goal,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def number(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value:.4g} {unit}"


def write(rows: Sequence[Row], machine: dict[str, str], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    data = [asdict(each) for each in rows]
    text = json.dumps({"machine": machine, "rows": data}, indent=1, ensure_ascii=False)
    (directory / "models.json").write_text(text + "\n", encoding="utf-8")
    with (directory / "models.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(data[0]))
        writer.writeheader()
        writer.writerows(data)
    (directory / "models.md").write_text(render(rows, machine), encoding="utf-8")
    bars = [
        Bar(f"{each.model}: {each.what}"[:72], each.goal_share, 1.0)
        for each in rows
        if each.goal_share is not None
    ]
    if bars:
        draw(directory / "models.png", f"share of the goal, {machine['GPU']}", bars, full=2.0)
