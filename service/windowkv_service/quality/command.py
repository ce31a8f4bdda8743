"""windowkv eval: the quality of answers on compressed caches, measured on a worker.

Without --target the worker runs in this process, with one torch thread; either way every question goes through the
SDK, gRPC and the engine. Exit status: 0 measured, 1 the worker could not start or said no, 2 the command was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from windowkv_client import Client
from windowkv_service.errors import UnsupportedModel
from windowkv_service.quality import report
from windowkv_service.quality.arm import Visibility, arms
from windowkv_service.quality.evaluation import Evaluation, OnStep
from windowkv_service.quality.method import Method
from windowkv_service.quality.result import Result
from windowkv_service.quality.suites import find_tasks, seed_kind, suites
from windowkv_service.quality.table import render
from windowkv_service.quality.worker import worker
from windowkv_service.telemetry import configure_logging

METHODS = ("full", "windowkv", "windowkv-published", "streamingllm", "random")
INSTALL = "pip install 'windowkv[bench]'"


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    configure_logging("error", "console")
    try:
        tasks, methods = find_tasks(args.suite or list(suites())), _methods(args.method or METHODS)
    except ValueError as error:
        return _complain(str(error), 2)
    chosen = arms(methods, args.kept_ratio or [0.12], map(Visibility, args.question or Visibility))
    evaluation = Evaluation(tasks, chosen, args.seed, args.samples)
    try:
        with _worker(args) as target, Client(target) as client:
            _check_methods(methods, client)
            facts = _facts(args, client)
            with _progress(evaluation) as on_step:
                results = evaluation.run(client, on_step)
    except (UnsupportedModel, ValueError) as error:
        return _complain(str(error), 1)
    if not args.json:
        sys.stdout.write(render(results, facts))
    if args.out is not None:
        _write(args.out, results, facts)
    if args.json:
        sys.stdout.write(json.dumps({"results": [result.public() for result in results]}) + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="windowkv eval", description="Measure answers on compressed caches.", allow_abbrev=False
    )
    made.add_argument(
        "--suite",
        action="append",
        metavar="S",
        help=f"{', '.join(suites())}, or a part such as single/2000; repeatable; default: all",
    )
    made.add_argument(
        "--method",
        action="append",
        metavar="M",
        help=f"its name on the wire, or a control such as windowkv@full: the same cache, answered with that "
        f"selection; repeatable; default: {', '.join(METHODS)}",
    )
    made.add_argument(
        "--kept-ratio", action="append", type=_ratio, metavar="R", help="repeatable; default: 0.12"
    )
    made.add_argument(
        "--question", action="append", choices=list(map(str, Visibility)), help="repeatable; default: both"
    )
    made.add_argument("--seed", type=_natural, default=0, help="under 1000 for development; default: 0")
    made.add_argument(
        "--samples", type=_positive, default=10, metavar="N", help="documents per task; default: 10"
    )
    made.add_argument("--model", default="builtin", help="'builtin' or a model's directory")
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs")
    made.add_argument("--target", metavar="HOST:PORT", help="measure this worker instead of one of our own")
    made.add_argument(
        "--out", type=Path, metavar="DIR", help="write results.json, results.csv, table.md and plots there"
    )
    made.add_argument("--json", action="store_true", help="end with one line of JSON, no table")
    return made


def _ratio(text: str) -> float:
    ratio = float(text)
    if not 0.0 < ratio <= 1.0:
        raise argparse.ArgumentTypeError(f"a kept ratio is in (0, 1], not {text}")
    return ratio


def _natural(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"not negative, as {text} is")
    return number


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {text}")
    return number


def _methods(names: Sequence[str]) -> list[Method]:
    return [Method.parse(name) for name in names]


@contextmanager
def _worker(args: argparse.Namespace) -> Iterator[str]:
    with nullcontext(args.target) if args.target else worker(args.model, args.device) as target:
        yield target


def _check_methods(methods: Sequence[Method], client: Client) -> None:
    """Before anything is spent. Raises ValueError."""
    known = client.models.get().methods
    if unknown := [method.name for method in methods if method.selector not in known]:
        raise ValueError(f"unknown method {unknown[0]!r}; known: {', '.join(known)}")


def _facts(args: argparse.Namespace, client: Client) -> dict[str, object]:
    """What must be known to run it again."""
    model = client.models.get()
    return {
        "windowkv": version("windowkv"),
        "model": f"{model.name} ({model.digest[:12]}, {model.dtype}, windows of {model.window_size})",
        "worker": args.target or "in this process, through gRPC on loopback",
        "seed": f"{args.seed} ({seed_kind(args.seed)})",
        "documents per task": args.samples,
    }


@contextmanager
def _progress(evaluation: Evaluation) -> Iterator[OnStep]:
    """A bar on standard error for people; nothing where nobody would see it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("evaluating", total=evaluation.num_steps)
        yield lambda task: bars.update(bar, advance=1, description=task)


def _write(folder: Path, results: Sequence[Result], facts: dict[str, object]) -> None:
    try:
        report.write(folder, results, facts)
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        _complain(f"no plots: they need matplotlib; install it with: {INSTALL}", 0)


def _complain(text: str, status: int) -> int:
    sys.stderr.write(f"windowkv eval: {text}\n")
    return status
