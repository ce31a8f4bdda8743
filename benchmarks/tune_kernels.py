"""Finds tile sizes for the kernels on this machine's GPU, and writes them to the table that is shipped.

    python benchmarks/tune_kernels.py [--operation decode_attention]

Each row of the GPU's class in kernels/windowkv_kernels/ops/tiles.json is improved one side at a time on a problem that
stands for what the row bounds, until nothing gets faster. Rows of shapes that nobody times stay as they are. Serving
never tunes: it reads the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "kernels")]

from gpu_clock import GpuClock  # noqa: E402
from kernel_problem import Model, Problem  # noqa: E402
from kernel_problems import (  # noqa: E402
    decode,
    moves,
    quantized_blocks,
    quantized_keys,
    score_windows,
    select,
)

from windowkv_kernels.ops._parts import TILES, part_of, shipped_tiles  # noqa: E402

Row = dict[str, Any]
CHOICES: Mapping[str, tuple[int, ...]] = {
    "BLOCK_N": (16, 32, 64, 128),
    "TOKENS": (32, 64, 128, 256),
    "ROWS": (32, 64, 128),
    "PIECE": (2048, 4096, 8192, 16384),
    "NUMBERS": (2048, 4096, 8192, 16384),
    "WINDOWS": (1024, 2048, 4096, 8192),
    "RESIDENT": (1, 2, 3, 4, 6),
    "num_warps": (2, 4, 8, 16),
    "num_stages": (1, 2, 3, 4, 5, 7),
}
NOTICEABLE = 0.98  # of the time before; less of an improvement is noise


def stand_in(operation: str, up_to: Mapping[str, int]) -> Problem | None:
    """A problem at the row's bounds; None for shapes that nobody serves, such as fp32."""
    if up_to.get("itemsize", 2) != 2 or (operation in ("decode_attention", "score_windows") and not up_to):
        return None
    model = Model("stand-in", 32, 8, up_to.get("head_dim", 256))
    rows = up_to.get("rows", 64)
    makers: dict[str, Callable[[], Problem]] = {
        "decode_attention": lambda: decode(model, 16, 16_384, 16, length=1 if rows <= 16 else rows // 4),
        "score_windows": lambda: score_windows(model, None),
        "move_windows": lambda: next(moves(model, num_windows=2000, window_size=16)),
        "quantize_keys": lambda: next(quantized_keys(model, 4)),
        "quantize_blocks": lambda: next(quantized_blocks(model, "int8", num_blocks=1000)),
        "select_windows": lambda: select(4, up_to.get("num_windows", 32_768)),
    }
    return makers[operation]()


def neighbours(row: Row) -> Iterator[Row]:
    """The row with one of its sides changed."""
    for side, choices in CHOICES.items():
        is_option = side.startswith("num_")
        if not is_option and side not in row["tile"]:
            continue
        for choice in choices:
            if is_option:
                yield row | {side: choice}
            else:
                yield row | {"tile": row["tile"] | {side: choice}}


def improve(row: Row, seconds_of: Callable[[Row], float]) -> tuple[Row, float]:
    """The best row that single changes lead to, and its time."""
    best, least = row, seconds_of(row)
    tried = {json.dumps(row)}
    is_better = True
    while is_better:
        is_better = False
        for candidate in neighbours(best):
            if json.dumps(candidate) in tried:
                continue
            tried.add(json.dumps(candidate))
            seconds = seconds_of(candidate)
            if seconds < NOTICEABLE * least:
                best, least, is_better = candidate, seconds, True
    return best, least


def tune(operation: str, clock: GpuClock) -> None:
    rows = shipped_tiles()[operation][part_of(clock.device).name]
    for number, row in enumerate(rows):
        problem = stand_in(operation, row.get("up_to", {}))
        if problem is None:
            continue
        work = problem.prepare(clock.device)

        def seconds_of(candidate: Row, number: int = number, work: Callable[[], object] = work) -> float:
            rows[number] = candidate  # in this process, the table that launchers read
            try:
                return clock.seconds(work)
            except Exception:  # too much of something: shared memory, registers, threads
                return float("inf")

        before = seconds_of(row)
        rows[number], after = improve(row, seconds_of)
        print(
            f"{operation}: {1e6 * before:.1f} → {1e6 * after:.1f} µs  {json.dumps(rows[number])}", flush=True
        )
        del work
        torch.cuda.empty_cache()


def render(table: Mapping[str, Mapping[str, list[Row]]]) -> str:
    """One line per row, for people who compare them."""
    operations = []
    for operation, classes in table.items():
        parts = []
        for name, rows in classes.items():
            lines = ",\n".join(f"      {json.dumps(row)}" for row in rows)
            parts.append(f'    "{name}": [\n{lines}\n    ]')
        operations.append(f'  "{operation}": {{\n' + ",\n".join(parts) + "\n  }")
    return "{\n" + ",\n".join(operations) + "\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operation", choices=sorted(shipped_tiles()), action="append")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no NVIDIA GPU that torch can use here: nothing to tune for.", file=sys.stderr)
        return 2
    clock = GpuClock(torch.device("cuda"), repetitions=10, budget_s=0.5)
    for operation in args.operation or sorted(shipped_tiles()):
        tune(operation, clock)
        TILES.write_text(render(shipped_tiles()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
