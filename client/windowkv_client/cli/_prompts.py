"""Flags that carry a document and say how to cache it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from windowkv_client._models import Codec, Durability, Retention, Task


def compression_flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("cache")
    group.add_argument(
        "--kept-ratio", type=float, metavar="R", help="share of the full cache kept on the device"
    )
    group.add_argument(
        "--min-fidelity",
        type=float,
        metavar="F",
        help="keep more, if it takes that to capture this share of attention",
    )
    group.add_argument("--method", help="how windows are chosen; see `windowkv health`")
    group.add_argument("--task", choices=list(map(str, Task)))
    group.add_argument("--retention", choices=list(map(str, Retention)), help="what becomes of the others")
    group.add_argument("--codec", choices=list(map(str, Codec)), help="how it is written below the device")
    group.add_argument("--durability", choices=list(map(str, Durability)), help="written down to where")
    group.add_argument("--ttl", help="life of the cache: 90s, 1h30m, 7d")
    return parser


def description_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", dest="display_name", metavar="TEXT", help="display name")
    parser.add_argument("--label", dest="labels", action="append", type=label, metavar="KEY=VALUE")
    parser.add_argument("--alias", help="a movable second name")
    parser.add_argument("--pinned", action=argparse.BooleanOptionalAction, help="never leave the device")


def label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: KEY=VALUE is expected")
    return key, value


def chosen(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given, as the SDK takes them."""
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "labels" in given:
        given["labels"] = dict(given["labels"])
    return given


def read_document(path: str) -> str:
    """A file's text; "-" is standard input. Raises OSError, or ValueError where it is not UTF-8."""
    raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
