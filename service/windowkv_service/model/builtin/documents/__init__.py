"""Generated documents with facts hidden in them, and questions about the facts. Pure Python, seeded, no torch.

A task is one small class with `draw(rng, split) -> Document`; `SingleFact` is the first, `tasks()` lists the thirteen
of RULER by name. Training draws from `Split.TRAIN`, evaluation, demo and tests from `Split.HELD_OUT`: one (name,
value) pair in eight, chosen by checksum, is held out, and a document states pairs of one split only.
"""

import re
from collections.abc import Iterator

from windowkv_service.model.builtin.documents import (
    facts,
    filler,
    lexicon,
    paragraphs,
    retrieval,
    single_fact,
    variables,
    word_counts,
)
from windowkv_service.model.builtin.documents.facts import ATTRIBUTES, Attribute, Fact, Split, split_of
from windowkv_service.model.builtin.documents.needle import Needle
from windowkv_service.model.builtin.documents.question import Document, Question, answer_text, question_suffix
from windowkv_service.model.builtin.documents.ruler import tasks
from windowkv_service.model.builtin.documents.single_fact import SingleFact, count_tokens
from windowkv_service.model.builtin.documents.task import Task, TaskMaker

__all__ = [
    "ATTRIBUTES",
    "Attribute",
    "Document",
    "Fact",
    "Needle",
    "Question",
    "SingleFact",
    "Split",
    "Task",
    "TaskMaker",
    "answer_text",
    "count_tokens",
    "phrases",
    "question_suffix",
    "split_of",
    "tasks",
]

_SLOT = re.compile(r"\{\w+\}")


def phrases() -> Iterator[str]:
    """Texts that together hold every token a document or question can need; the tokenizer is built from them."""
    templates = [
        single_fact.TITLE,
        single_fact.DAY,
        question_suffix(""),
        *filler.SENTENCES,
        *filler.DISTRACTORS,
        *retrieval.NOISE,
        retrieval.ALL_OF_ONE,
        retrieval.ONE_OF_EACH,
        variables.ASSIGNMENT,
        variables.QUESTION,
        word_counts.COMMON_QUESTION,
        word_counts.FREQUENT_QUESTION,
        paragraphs.BRIDGED_QUESTION,
        " ten",
    ]
    for attribute in (*facts.ATTRIBUTES, retrieval.NUMBER, retrieval.CODE, paragraphs.COMPANION):
        templates += [*attribute.statements, *attribute.questions]
    for template in templates:
        yield (
            " " + _SLOT.sub("", template).lstrip(" ") if not template.startswith(("\n", "Log")) else template
        )
    for word in lexicon.words():
        yield " " + word
