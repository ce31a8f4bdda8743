"""windowkv eval: the quality of answers on compressed caches, measured on a worker.

Without --target the worker runs in this process, with one torch thread; either way every question goes through the
SDK, gRPC and the engine. Exit status: 0 measured, 1 the worker could not start or said no, 2 the command was wrong, 130
interrupted; what was measured until then is reported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from windowkv_client import AsyncClient, Client, Model, WindowKVError
from windowkv_service.errors import UnsupportedModel
from windowkv_service.quality import report
from windowkv_service.quality.answers import Answers, recorded
from windowkv_service.quality.arm import Visibility, arms
from windowkv_service.quality.evaluation import Evaluation, OnStep
from windowkv_service.quality.method import Method, with_references
from windowkv_service.quality.options import METHODS, parser
from windowkv_service.quality.result import Result
from windowkv_service.quality.suites import find_tasks, seed_kind, suites
from windowkv_service.quality.tables import insert, render
from windowkv_service.quality.worker import worker
from windowkv_service.telemetry import configure_logging

INSTALL = "pip install 'windowkv[bench]'"
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    configure_logging("error", "console")
    try:
        evaluation, methods = _evaluation(args)
    except ValueError as error:
        return _complain(str(error), 2)
    try:
        with _target(args) as target:
            return _measure(args, evaluation, methods, target)
    except (UnsupportedModel, ValueError) as error:
        return _complain(str(error), 1)


def _evaluation(args: argparse.Namespace) -> tuple[Evaluation, Sequence[Method]]:
    """What was asked for. Raises ValueError."""
    if args.resume and args.out is None:
        raise ValueError("--resume needs the --out of the run that it goes on with")
    methods = [Method.parse(name) for name in args.method or METHODS]
    methods = methods if args.no_baselines else with_references(methods)
    chosen = arms(methods, args.kept_ratio or [0.12], map(Visibility, args.question or Visibility))
    return Evaluation(find_tasks(args.suite or list(suites())), chosen, args.seed, args.samples), methods


def _target(args: argparse.Namespace) -> AbstractContextManager[str]:
    return nullcontext(args.target) if args.target else worker(args.model, args.device)


def _measure(args: argparse.Namespace, evaluation: Evaluation, methods: Sequence[Method], target: str) -> int:
    """Asks, and reports whatever came of it. Raises ValueError before anything is spent."""
    with Client(target) as client:
        model = client.models.get()
    _check_methods(methods, model)
    facts = _facts(args, model)
    with _answers(args, facts) as answers:
        status = _ask(target, evaluation, answers)
    facts["documents per task"] = args.samples
    if status:
        facts["interrupted"] = f"after {len(answers)} of {len(evaluation.places)} documents under methods"
    _report(args, evaluation.results(answers), facts)
    return status


def _check_methods(methods: Sequence[Method], model: Model) -> None:
    if unknown := [method.name for method in methods if method.selector not in model.methods]:
        raise ValueError(f"unknown method {unknown[0]!r}; known: {', '.join(model.methods)}")


def _facts(args: argparse.Namespace, model: Model) -> dict[str, object]:
    """What must be known to run it again, and be the same for answers to belong together."""
    return {
        "windowkv": version("windowkv"),
        "model": f"{model.name} ({model.digest[:12]}, {model.dtype}, windows of {model.window_size})",
        "worker": args.target or "in this process, through gRPC on loopback",
        "seed": f"{args.seed} ({seed_kind(args.seed)})",
    }


def _answers(args: argparse.Namespace, facts: Mapping[str, object]) -> AbstractContextManager[Answers]:
    return nullcontext(Answers()) if args.out is None else recorded(args.out, facts, is_resumed=args.resume)


def _ask(target: str, evaluation: Evaluation, answers: Answers) -> int:
    """The exit status: whether all was asked."""
    try:
        with _progress(evaluation, answers) as on_step:
            asyncio.run(_run(target, evaluation, answers, on_step))
    except KeyboardInterrupt:
        return _complain("interrupted; --resume goes on where --out was given", INTERRUPTED)
    except WindowKVError as error:
        return _complain(str(error), 1)
    return 0


async def _run(target: str, evaluation: Evaluation, answers: Answers, on_step: OnStep) -> None:
    async with AsyncClient(target) as client:
        await evaluation.run(client, answers, on_step)


@contextmanager
def _progress(evaluation: Evaluation, answers: Answers) -> Iterator[OnStep]:
    """A bar on standard error for people; nothing where nobody would see it."""
    console = Console(stderr=True)
    text = TextColumn("{task.description}")
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    places = evaluation.places
    done = sum(place in answers for place in places)
    with Progress(
        text,
        BarColumn(),
        MofNCompleteColumn(),
        *times,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        bar = bars.add_task("evaluating", total=len(places), completed=done)
        yield lambda task: bars.update(bar, advance=1, description=task)


def _report(args: argparse.Namespace, results: Sequence[Result], facts: dict[str, object]) -> None:
    tables = render(results, facts)
    if not args.json:
        sys.stdout.write(tables)
    if args.out is not None:
        _write(args.out, results, facts)
    if args.page is not None:
        insert(args.page, tables)
    if args.json:
        sys.stdout.write(json.dumps({"results": [result.public() for result in results]}) + "\n")


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
