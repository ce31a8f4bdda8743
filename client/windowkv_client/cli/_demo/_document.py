"""The document that comes with the built-in model, and what is asked about it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from windowkv_client.cli._size import BUILTIN, model_path


@dataclass(frozen=True)
class Question:
    text: str
    answer: str


@dataclass(frozen=True)
class DemoDocument:
    text: str
    questions: tuple[Question, ...]


def read_document() -> DemoDocument:
    """Raises ValueError where the built-in model is not installed."""
    path = model_path(BUILTIN) / "demo.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    questions = tuple(Question(each["text"], each["answer"]) for each in raw["questions"])
    return DemoDocument(raw["text"], questions)
