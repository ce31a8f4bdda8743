"""The flags of windowkv eval."""

from __future__ import annotations

import argparse
from pathlib import Path

from windowkv_service.quality.arm import Visibility
from windowkv_service.quality.method import BLIND, FULL
from windowkv_service.quality.suites import FROM_FILES, suites

METHODS = ("windowkv", "windowkv-published")
REFERENCES = ", ".join((FULL, *BLIND))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="windowkv eval", description="Measure answers on compressed caches.", allow_abbrev=False
    )
    _what(made)
    _where(made)
    _reports(made)
    return made


def _what(made: argparse.ArgumentParser) -> None:
    places = ", ".join(f"{kind}:DIR" for kind in FROM_FILES)
    made.add_argument(
        "--suite",
        action="append",
        metavar="S",
        help=f"{', '.join(suites())}, a part such as ruler/vt or ruler/*/2000, or published files: {places}, "
        "longbench:DIR/dataset; repeatable; default: all of our own",
    )
    made.add_argument(
        "--method",
        action="append",
        metavar="M",
        help="its name on the wire, with a codec as in windowkv+int8, or a control such as windowkv@full: the same "
        "cache, answered with that selection; "
        f"repeatable; default: {', '.join(METHODS)}",
    )
    made.add_argument(
        "--no-baselines",
        action="store_true",
        help=f"only the methods that are named; without it, {REFERENCES} are always measured beside them",
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


def _where(made: argparse.ArgumentParser) -> None:
    made.add_argument("--model", default="builtin", help="'builtin' or a model's directory")
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs")
    made.add_argument("--target", metavar="HOST:PORT", help="measure this worker instead of one of our own")


def _reports(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write answers as they come, then results.json, results.csv, table.md and plots, there",
    )
    made.add_argument(
        "--resume",
        action="store_true",
        help="go on from all answers*.jsonl in --out; more methods or samples may be asked for, and runs be joined",
    )
    made.add_argument(
        "--page", type=Path, metavar="FILE", help="put the tables under '## Tables' of this page too"
    )
    made.add_argument("--json", action="store_true", help="end with one line of JSON, no table")


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
