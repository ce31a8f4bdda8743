"""The comment of every field, enum value and message begins with its name, and numbers are never reused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROTO = Path(__file__).resolve().parents[2] / "proto"
FILES = sorted(PROTO.glob("windowkv/v1/*.proto"))
DECLARATION = re.compile(
    r"^\s*(?:(?:message|enum|service|rpc|oneof) (\w+)"
    r"|(?:optional |repeated )?(?:map<[^>]+>|[\w.]+) (\w+) = \d+;"
    r"|([A-Z][A-Z0-9_]*) = \d+;)"
)


def declarations(path: Path) -> Iterator[tuple[str, str]]:
    """Each declared name, and the comment above it, its lines joined."""
    comment: list[str] = []
    for line in path.read_text().splitlines():
        match = DECLARATION.match(line)
        if line.strip().startswith("//"):
            comment.append(line.strip().removeprefix("//").strip())
            continue
        if match:
            yield next(name for name in match.groups() if name), " ".join(comment)
        comment = []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_comment_begins_with_the_name(path: Path) -> None:
    declared = list(declarations(path))
    assert len(declared) > 10
    assert [name for name, comment in declared if comment.split(" ")[0].rstrip(",") != name] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_numbers_are_never_skipped_without_a_word(path: Path) -> None:
    """A removed number is reserved, so that it never comes back with another meaning."""
    text = path.read_text()
    for body in re.findall(r"^(?:message|enum) \w+ \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        numbers = sorted(int(number) for number in re.findall(r"= (\d+);", body))
        if numbers and "reserved" not in body:
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
