"""What a command says: tables, bars and streamed text for people, one JSON object for machines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from windowkv_client._errors import WindowKVError
from windowkv_client._models import Progress as PrefillProgress

WIDE = 240
OnProgress = Callable[[PrefillProgress], None]


class Terminal:
    """Results go to standard output, everything about them (bars, notes, errors) to standard error."""

    def __init__(self, *, is_json: bool) -> None:
        self.is_json = is_json
        self._out = Console(highlight=False, soft_wrap=True)
        if not self._out.is_terminal:
            self._out.width = WIDE  # a file or a pipe has no edge to wrap at
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)

    def result(self, value: object) -> None:
        """The machine's answer, on one line."""
        self._out.out(json.dumps(plain(value), ensure_ascii=False), highlight=False)

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None
    ) -> None:
        """Columns whose name begins with # hold numbers."""
        table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
        for column in columns:
            justify: Literal["left", "right"] = "right" if column.startswith("#") else "left"
            table.add_column(column.lstrip("#"), justify=justify, no_wrap=column == "name")
        for row in rows:
            table.add_row(*(escape(str(cell)) for cell in row))
        self._out.print(table)

    def facts(self, title: str, facts: Mapping[str, object]) -> None:
        """One thing and what is to say of it."""
        table = Table(title=title, title_justify="left", show_header=False, box=SIMPLE_HEAD)
        for name, fact in facts.items():
            table.add_row(name, escape(str(fact)))
        self._out.print(table)

    def text(self, text: str, end: str = "\n") -> None:
        """Plain text, as it comes."""
        self._out.file.write(text + end)
        self._out.file.flush()

    def note(self, text: str) -> None:
        self._err.print(text, style="dim", markup=False)

    def error(self, error: WindowKVError) -> None:
        """One line that names the reason; machines get it on standard output too."""
        if self.is_json:
            details = {"reason": error.reason, "status": error.status, "field": error.field}
            details |= {"message": error.message, "request_id": error.request_id}
            self.result({"error": {**details, "retry_after_s": error.retry_after_s}})
        where = f" ({error.field})" if error.field else ""
        request = f" [request {error.request_id}]" if error.status == "INTERNAL" else ""
        reason = error.status if error.reason == WindowKVError.reason else error.reason
        self.complaint(f"{reason}{where}: {error.message}{request}")

    def complaint(self, text: str) -> None:
        self._err.print(f"windowkv: {text}", style="red", markup=False)

    @contextmanager
    def progress(self, title: str) -> Iterator[OnProgress | None]:
        """A bar for a prefill; None where nobody would see it."""
        if self.is_json or not self._err.is_terminal:
            yield None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("tokens"))
        with Progress(*columns, TimeElapsedColumn(), console=self._err, transient=True) as bars:
            task = bars.add_task(title, total=None)
            yield lambda progress: bars.update(
                task, completed=progress.done_tokens, total=progress.total_tokens
            )


def plain(value: object) -> Any:
    """value in JSON's own types; times in ISO 8601."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value.isoformat() if isinstance(value, datetime) else value


def size(num_bytes: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(num_bytes) < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"
