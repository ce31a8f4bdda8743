"""What the Triton kernels reach on this machine's GPU, held against what its memory allows.

    python benchmarks/kernel_speed.py            checks every kernel, then measures; writes results/gpu/kernels.*
    python benchmarks/kernel_speed.py --check    only checks: fp64 references, random data, memory full of NaN
    python benchmarks/kernel_speed.py --plan     the table of what would be measured, for a machine without a GPU

The floor of an operation is the bytes that it cannot avoid over the bandwidth of a copy measured in the same run, or
the time of one empty launch. The share is floor over time. Needs torch and triton, nothing else.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "kernels"), str(ROOT / "tests" / "support")]

from bar_chart import Bar, draw  # noqa: E402
from gpu_clock import GpuClock  # noqa: E402
from gpu_machine import describe  # noqa: E402
from kernel_cases.on_gpu import CASES  # noqa: E402
from kernel_problem import Problem  # noqa: E402
from kernel_problems import problems  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "gpu"
MAX_PROCESSES = 6  # each takes half a GiB of the GPU for itself
CASES_PER_PROCESS = 4  # what one of them does to its GPU's context must not trouble all others
NO_GPU = "There is no NVIDIA GPU that torch can use here: nothing was measured."


@dataclass(frozen=True)
class Row:
    """seconds and floor_s are None where nothing was measured, peer_s where there was nothing to compare with."""

    operation: str
    shape: str
    bytes: int
    flops: int
    goal: float | None
    seconds: float | None = None
    floor_s: float | None = None
    peer_s: float | None = None

    @property
    def share(self) -> float | None:
        return None if self.seconds is None or self.floor_s is None else self.floor_s / self.seconds


def planned(problem: Problem) -> Row:
    return Row(problem.operation, problem.shape, problem.bytes, problem.flops, problem.goal)


def check(device: torch.device, num_processes: int) -> int:
    """Run every case; the number of those that failed. Compiling is most of it: several processes share it."""
    num_failed = 0
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    options = {"initializer": torch.set_num_threads, "initargs": (threads,)}
    with ProcessPoolExecutor(
        num_processes, context, max_tasks_per_child=CASES_PER_PROCESS, **options
    ) as pool:
        running = {pool.submit(verdict, number, device.type): case for number, case in enumerate(CASES)}
        for done in as_completed(running):
            error = done.exception()  # a process that has died
            seconds, fault = (0.0, str(error)) if error is not None else done.result()
            num_failed += fault is not None
            print(f"{seconds:6.1f} s  {f'FAILED: {fault}' if fault else 'ok'}  {running[done]}", flush=True)
    print(f"{len(CASES) - num_failed} of {len(CASES)} cases hold")
    return num_failed


def verdict(number: int, device: str) -> tuple[float, str | None]:
    """Seconds, and what is wrong. A kernel that does not even compile must not hide the others."""
    started, fault = time.perf_counter(), None
    try:
        CASES[number].check(torch.device(device))
    except Exception as error:
        fault = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if device == "cuda":
        torch.cuda.empty_cache()
    return time.perf_counter() - started, fault


def measure(clock: GpuClock, bandwidth: float, launch_s: float) -> list[Row]:
    rows = []
    for problem in problems():
        work = problem.prepare(clock.device)
        seconds = clock.seconds(work)
        del work
        torch.cuda.empty_cache()
        peer_s = measure_peer(clock, problem)
        floor_s = problem.bytes / bandwidth if problem.bytes else launch_s
        row = Row(**(asdict(planned(problem)) | {"seconds": seconds, "floor_s": floor_s, "peer_s": peer_s}))
        rows.append(row)
        print(
            f"{1e6 * seconds:10.1f} µs  {100 * floor_s / seconds:5.1f} %  {row.operation}, {row.shape}",
            flush=True,
        )
    return rows


def measure_peer(clock: GpuClock, problem: Problem) -> float | None:
    """Somebody else's kernel on the same work. That it does not run here is no fault of ours."""
    try:
        work = problem.peer(clock.device)
        return None if work is None else clock.seconds(work)
    except Exception as error:
        print(f"not compared: {problem.shape}: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    finally:
        torch.cuda.empty_cache()


def render(rows: Sequence[Row], machine: dict[str, str]) -> str:
    lines = [
        "# Kernels on a GPU",
        "",
        "By `benchmarks/gpu.sh`. Floor: the bytes that cannot be avoided over the copy ",
    ]
    lines[-1] += "bandwidth of the same run, or one empty launch. Share: floor over time. "
    lines[-1] += "FlashInfer: its batch decode on the same blocks, where it is installed."
    lines += [
        "",
        "| machine | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in machine.items()),
        "",
    ]
    lines += [
        "| operation | shape | bytes | FLOPs | floor, µs | time, µs | share | goal | FlashInfer, µs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        measured = ["not measured"] * 3
        if row.seconds is not None and row.floor_s is not None and row.share is not None:
            measured = [f"{1e6 * row.floor_s:.1f}", f"{1e6 * row.seconds:.1f}", f"{100 * row.share:.0f} %"]
        goal = "–" if row.goal is None else f"≥ {100 * row.goal:.0f} %"
        peer = "–"
        if row.operation == "decode_attention":
            peer = "not measured" if row.peer_s is None else f"{1e6 * row.peer_s:.1f}"
        facts = [f"`{row.operation}`", row.shape, f"{row.bytes:.3g}", f"{row.flops:.3g}"]
        cells = [*facts, *measured, goal, peer]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(rows: Sequence[Row], machine: dict[str, str], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    data = [asdict(row) | {"share": row.share} for row in rows]
    (directory / "kernels.json").write_text(json.dumps({"machine": machine, "rows": data}, indent=1) + "\n")
    with (directory / "kernels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(data[0]))
        writer.writeheader()
        writer.writerows(data)
    (directory / "kernels.md").write_text(render(rows, machine), encoding="utf-8")
    bars = [Bar(_latin(row), row.share, row.goal) for row in rows if row.share is not None]
    if bars:
        draw(directory / "kernels.png", f"share of the floor, {machine['GPU']}", bars)


def _latin(row: Row) -> str:
    """A label in the letters that the chart has."""
    return f"{row.operation} {row.shape}".replace("ω", "w").replace("α", "a")[:72]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="check only")
    parser.add_argument("--plan", action="store_true", help="write the table with nothing measured")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the directory that results are written to")
    args = parser.parse_args()
    if args.plan:
        write([planned(problem) for problem in problems()], {"GPU": "none: not measured"}, args.out)
        return 0
    if not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    device = torch.device("cuda")
    num_failed = check(device, max(1, min(MAX_PROCESSES, (os.cpu_count() or 2) // 2)))
    if not args.check:
        clock = GpuClock(device)
        bandwidth, launch_s = clock.copy_bandwidth(), clock.launch_seconds()
        machine = describe(device, bandwidth, launch_s)
        write(measure(clock, bandwidth, launch_s), machine, args.out)
    return int(num_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
