"""What models of real shape reach on this machine's GPU: decode steps, throughput, first tokens, restores, compression.

    python benchmarks/models.py            checks the service's parts, then measures; writes results/gpu/models.*
    python benchmarks/models.py --tiny     the same code on a miniature model, on the processor: it proves only itself
    python benchmarks/models.py --plan     the table of what would be measured

Weights are random and whole: no layer is left out and nothing is extrapolated. Needs torch, triton and transformers,
nothing else, and no network.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / room) for room in ("kernels", "service", "proto", "tests/support")]
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from gpu_checks import CHECKS  # noqa: E402
from gpu_clock import GpuClock  # noqa: E402
from gpu_machine import describe  # noqa: E402
from model_measures import Clock, measurements, release  # noqa: E402
from model_shapes import LLAMA, MINIATURE, QWEN, REAL, TINY, Shape, Sizes  # noqa: E402
from model_subject import Subject  # noqa: E402
from model_table import Kind, Row, kinds, number, row, write  # noqa: E402
from wall_clock import WallClock  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "gpu"
NO_GPU = "There is no NVIDIA GPU that torch can use here: nothing was measured."


def check(device: torch.device) -> int:
    """The number of parts that do not do on this GPU what they must."""
    num_failed = 0
    for one in CHECKS:
        try:
            one(device)
            verdict = "ok"
        except Exception as error:  # what breaks one must not hide the others
            num_failed += 1
            verdict = f"FAILED: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        print(f"{verdict}  {one.__name__.replace('_', ' ')}", flush=True)
    return num_failed


def measure(
    shapes: Sequence[Shape], sizes: Sizes, clock: Clock, bandwidth: float, until: float = math.inf
) -> Iterator[tuple[Row, Exception | None]]:
    """Row by row, as they are measured. What fails is told, and the others are measured all the same. until: of
    time.monotonic(); what has not begun by then is left out."""
    for shape in shapes:
        todo = kinds(shape, sizes)
        subject = Subject(shape, sizes, clock.device) if time.monotonic() < until else None
        for prefix, work in () if subject is None else measurements(subject, clock, bandwidth):
            if time.monotonic() >= until:
                break
            fault: Exception | None = None
            try:
                for name, result in work():
                    yield row(shape, todo.pop(prefix + name), result), None
            except Exception as error:
                fault = error
            release(clock.device)
            if fault is not None:
                yield row(shape, Kind(f"FAILED after {prefix}{work}", "", ""), None), fault
        for kind in todo.values():
            yield row(shape, kind, None), None
        del subject
        release(clock.device)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="a miniature model on the processor")
    parser.add_argument("--plan", action="store_true", help="write the table with nothing measured")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin nothing after so long")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the directory that results are written to")
    args = parser.parse_args()
    until = time.monotonic() + args.seconds
    if args.plan:
        plan = [row(shape, kind, None) for shape in (LLAMA, QWEN) for kind in kinds(shape, REAL).values()]
        write(plan, {"GPU": "none: not measured"}, args.out)
        return 0
    num_failed = 0
    if args.tiny:
        torch.set_num_threads(1)
        clock: Clock = WallClock()
        shapes, sizes, machine = [MINIATURE], TINY, {"GPU": "none: a miniature on the processor"}
        bandwidth = clock.copy_bandwidth()
    elif not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    else:
        clock = gpu = GpuClock(torch.device("cuda"))
        bandwidth = gpu.copy_bandwidth()
        shapes, sizes = [LLAMA, QWEN], REAL
        machine = describe(gpu.device, bandwidth, gpu.launch_seconds())
        num_failed = check(gpu.device)
    rows: list[Row] = []
    for each, fault in measure(shapes, sizes, clock, bandwidth, until):
        if fault is None:
            rows.append(each)
            write(rows, machine, args.out)  # what is measured is kept, whatever comes after
            print(f"{number(each.value, each.unit):>24}  {each.ratio}  {each.model}: {each.what}", flush=True)
        else:
            num_failed += 1
            print(f"{each.model}: {each.what}: {type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
    return int(num_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
