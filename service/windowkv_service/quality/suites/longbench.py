"""longbench: the published LongBench (Bai et al. 2023, arXiv:2308.14508) from its JSON-lines files.

A line has `input` (the question), `context`, `answers`, `all_classes`, and more that is not needed. The prompt is the
data set's template; whatever stands up to the context's end is the document, the rest is asked of it. Prompts go to the
model as they are, without a chat template.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from windowkv_service.quality.case import Asked
from windowkv_service.quality.metrics import (
    Best,
    Classification,
    Similarity,
    code_similarity,
    number_share,
    rouge_l,
    rouge_l_chinese,
    token_f1,
    token_f1_chinese,
)
from windowkv_service.quality.suites.base import Suite
from windowkv_service.quality.suites.filed import Filed, by_document
from windowkv_service.quality.suites.records import BadFile, Record, read_records

NAME = "longbench"
_ENGLISH_TAIL = "_e"  # LongBench-E: the same data sets, evenly long
_SIMILARITIES: Mapping[str, Similarity] = {
    "token F1": token_f1,
    "token F1, Chinese": token_f1_chinese,
    "ROUGE-L": rouge_l,
    "ROUGE-L, Chinese": rouge_l_chinese,
    "numbers": number_share,
    "code similarity": code_similarity,
}


def longbench(place: Path) -> Suite:
    """The data sets in a folder, or the one of `folder/dataset`. Raises BadFile."""
    paths = sorted(place.glob("*.jsonl")) if place.is_dir() else [place.with_name(f"{place.name}.jsonl")]
    known = [path for path in paths if _dataset(path) in datasets()]
    if not known:
        raise BadFile(f"{place}: no file of LongBench there, such as hotpotqa.jsonl")
    return Suite(NAME, tuple(_task(path) for path in known))


@cache
def datasets() -> Mapping[str, Mapping[str, Any]]:
    """What is known of each data set: group, metric, max_tokens, template, and first_line and stop where they apply."""
    source = files("windowkv_service.quality.suites").joinpath("longbench.toml")
    return tomllib.loads(source.read_text(encoding="utf-8"))


def group_of(task_name: str) -> str:
    """The task group of one of the suite's tasks."""
    return str(datasets()[task_name.removeprefix(f"{NAME}/").removesuffix(_ENGLISH_TAIL)]["group"])


def _dataset(path: Path) -> str:
    return path.stem.removesuffix(_ENGLISH_TAIL)


def _task(path: Path) -> Filed:
    facts = datasets()[_dataset(path)]
    asked = (_asked(facts, record) for record in read_records(path))
    return Filed(f"{NAME}/{path.stem}", by_document(asked))


def _asked(facts: Mapping[str, Any], record: Record) -> tuple[str, Asked]:
    """The document and its question."""
    before, _, after = facts["template"].partition("{context}")
    question = Asked(
        text=after.replace("{input}", record.text("input")),
        expected=record.texts("answers"),
        metric=Best(_similarity(facts, record), is_first_line=facts.get("first_line", False)),
        max_tokens=facts["max_tokens"],
        stop=tuple(facts.get("stop", ())),
    )
    return before + record.text("context"), question


def _similarity(facts: Mapping[str, Any], record: Record) -> Similarity:
    if facts["metric"] == "classification":
        return Classification(record.texts("all_classes"))
    return _SIMILARITIES[facts["metric"]]
