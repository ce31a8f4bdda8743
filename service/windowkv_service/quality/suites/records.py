"""Files of one JSON object per line, read with a care for who must mend them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class BadFile(ValueError):
    """A file that is not what its suite reads; says file, line and field."""


@dataclass(frozen=True)
class Record:
    """One line of a file. Its fields are asked for by type; BadFile where they are missing or of another one."""

    path: Path
    line: int
    fields: Mapping[str, Any]

    def text(self, name: str, default: str | None = None) -> str:
        value = self.fields.get(name, default)
        if not isinstance(value, str):
            raise self.trouble(f"{name!r} must be a string")
        return value

    def texts(self, name: str, *, may_be_empty: bool = False) -> tuple[str, ...]:
        """Strings; numbers are taken for their digits."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(isinstance(one, str | int) for one in value):
            raise self.trouble(f"{name!r} must be a list of strings")
        if not value and not may_be_empty:
            raise self.trouble(f"{name!r} is empty")
        return tuple(map(str, value))

    def trouble(self, what: str) -> BadFile:
        return BadFile(f"{self.path}:{self.line}: {what}")


def read_records(path: Path) -> Iterator[Record]:
    """The lines of the file that are not blank. Raises BadFile, also for a file that cannot be opened or has none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{path}: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise BadFile(f"{path}: no lines")
    for number, line in numbered:
        yield Record(path, number, _fields(path, number, line))


def _fields(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise BadFile(f"{path}:{number}: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BadFile(f"{path}:{number}: not a JSON object")
    return fields
