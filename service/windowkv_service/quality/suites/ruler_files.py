"""ruler-files: RULER's own tasks (Hsieh et al. 2024, arXiv:2404.06654) from the JSON-lines files its scripts write.

A line has `input`, `outputs`, and in newer files `answer_prefix`, which then goes behind the input. RULER writes the
document and its question as one text; for a question that comes later it is cut where the task's question begins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from windowkv_service.quality.case import Asked
from windowkv_service.quality.metrics import Metric, ruler_all, ruler_any
from windowkv_service.quality.suites.base import Suite
from windowkv_service.quality.suites.filed import Filed, by_document
from windowkv_service.quality.suites.records import BadFile, Record, read_records

NAME = "ruler-files"
_NAMELESS = ("data", "validation", "test")  # what RULER calls folders and files that say nothing of the task


@dataclass(frozen=True)
class Form:
    """What one kind of RULER task looks like. question: how its question begins; it is said last in the prompt."""

    question: str
    max_tokens: int
    metric: Metric = ruler_all


_NEEDLES = Form(r"What (are all|is) the special magic ", 128)
_ANSWERS = Form(r"Answer the question based on the given documents\.", 32, ruler_any)
FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "niah_single_1": _NEEDLES,
        "niah_single_2": _NEEDLES,
        "niah_single_3": _NEEDLES,
        "niah_multikey_1": _NEEDLES,
        "niah_multikey_2": _NEEDLES,
        "niah_multikey_3": _NEEDLES,
        "niah_multivalue": _NEEDLES,
        "niah_multiquery": _NEEDLES,
        "vt": Form(r"Question: Find all variables that are assigned the value ", 30),
        "cwe": Form(r"Question: What are the 10 most common words ", 120),
        "fwe": Form(r"Question: Do not provide any explanation\.", 50),
        "qa_1": _ANSWERS,
        "qa_2": _ANSWERS,
    }
)


def ruler_files(folder: Path) -> Suite:
    """The tasks of all files under the folder, named by the file or a folder above it. Raises BadFile."""
    if not folder.is_dir():
        raise BadFile(f"{folder}: no such folder")
    named = [(path, _task_of(folder, path)) for path in sorted(folder.rglob("*.jsonl"))]
    tasks = [_task(folder, path, name) for path, name in named if name is not None]
    if not tasks:
        raise BadFile(f"{folder}: no file of RULER under it, such as vt.jsonl or vt/validation.jsonl")
    return Suite(NAME, tuple(tasks))


def _parts(folder: Path, path: Path) -> list[str]:
    return [*path.relative_to(folder).parent.parts, path.stem]


def _task_of(folder: Path, path: Path) -> str | None:
    """The task that a file is of: what it or the nearest folder is called, the given folder included."""
    return next(
        (part for part in reversed([folder.resolve().name, *_parts(folder, path)]) if part in FORMS), None
    )


def _task(folder: Path, path: Path, name: str) -> Filed:
    """`ruler-files/vt`, and whatever else the path says, such as a length: `ruler-files/vt/4096`."""
    others = [part for part in _parts(folder, path) if part != name and part not in _NAMELESS]
    asked = (_asked(FORMS[name], record) for record in read_records(path))
    return Filed("/".join([NAME, name, *others]), by_document(asked))


def _asked(form: Form, record: Record) -> tuple[str, Asked]:
    """The document and its question. White space before the question belongs to it."""
    prompt = record.text("input")
    *_, begin = [-1, *(match.start() for match in re.finditer(rf"\s+{form.question}", prompt))]
    if begin < 1:
        raise record.trouble(
            f"no question begins with {form.question!r}; it cannot be told from its document"
        )
    text = prompt[begin:] + record.text("answer_prefix", "")
    question = Asked(text, record.texts("outputs"), form.metric, form.max_tokens, stop=())
    return prompt[:begin], question
