"""Results as Markdown."""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from offline.development import GROUPS
from offline.measurement import Measurement
from offline.result import Result

EPSILON = 5e-4  # of the full cache: what is held may exceed a kept ratio by rounding


def heading(title: str, args: argparse.Namespace, measurement: Measurement, began: float) -> str:
    """What was run, on what, and how its tables are read. args: of a script here; began: its process time then."""
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    model, minutes = measurement.model, (time.process_time() - began) / 60
    lengths = " and ".join(f"{length:,}" for length in args.tokens)
    dtype = str(model.dtype).removeprefix("torch.")
    return f"""# {title}

    {command}

{measurement.num_questions} questions, {args.documents * args.questions} or more of each of {len(args.tasks)} tasks, on
generated documents of {lengths} tokens (training split, seeds from {args.seed:,}), asked after these were cached.
Greedy, {dtype}, windows of {args.window_size} tokens. Model {model.name}, digest {model.digest.hex()[:16]}.
{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {minutes:.0f} minutes of one core.

A score is the share of the expected words in the first line of the answer, the mean over tasks; in brackets the worst
task. A kept ratio counts blocks, leader keys and digests in bytes; † is what was held where even the least did not fit.
*gain* is against the base, over all kept ratios, paired by question, ± one standard error over documents.
"""


def table(results: Sequence[Result], base: Result, group_ratio: float) -> str:
    """One row per result. Groups are shown at one kept ratio."""
    ratios = base.ratios
    groups = [group for group in GROUPS if group in base.by_group(group_ratio)]
    head = [
        "choice",
        *(f"kept {ratio:.2f}" for ratio in ratios),
        "gain",
        *(f"{group} ({group_ratio:.2f})" for group in groups),
    ]
    lines = [_line(head), "|---" * len(head) + "|"]
    lines += [_line(_row(result, base, ratios, groups, group_ratio)) for result in results]
    return "\n".join(lines)


def _row(
    result: Result, base: Result, ratios: Sequence[float], groups: Sequence[str], group_ratio: float
) -> list[str]:
    by_group = result.by_group(_or_only(result, group_ratio))
    gain = (
        "–"
        if result is base or result.ratios != base.ratios
        else "{:+.3f} ± {:.3f}".format(*result.gain(base))
    )
    return [
        result.name,
        *(_score(result, _or_only(result, ratio)) for ratio in ratios),
        gain,
        *(f"{by_group[group]:.2f}" for group in groups),
    ]


def _score(result: Result, ratio: float) -> str:
    """Mean and worst task; what was held where that is more than was allowed."""
    task, score = result.worst(ratio)
    held = result.mean_of(ratio, lambda tally: tally.size_ratio)
    excess = f" †{held:.3f}" if held > ratio + EPSILON and ratio < 1.0 else ""
    return f"{result.score(ratio):.3f} ({task.removeprefix('niah_')} {score:.2f}){excess}"


def _or_only(result: Result, ratio: float) -> float:
    """The full cache was asked once, at a ratio of its own."""
    return ratio if ratio in result.ratios else result.ratios[0]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
