"""The documents that calibration and experiments ask about: never those of the reporting seeds."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from windowkv_service.model.builtin.documents import (
    Document,
    Question,
    SingleFact,
    Split,
    TaskMaker,
    tasks,
)

FIRST_SEED = 770_000
SPARE_TOKENS = 4  # an answer may be so much longer than the expected one

#: What the tasks are about, by name; `single` are the single facts the built-in model was first made for.
GROUPS = {
    "one needle": ("single", "niah_single_1", "niah_single_2", "niah_single_3"),
    "many keys": ("niah_multikey_1", "niah_multikey_2", "niah_multikey_3"),
    "many values": ("niah_multivalue", "niah_multiquery"),
    "tracking": ("vt",),
    "counting": ("cwe", "fwe"),
    "paragraphs": ("qa_1", "qa_2"),
}
TASKS = tuple(name for names in GROUPS.values() for name in names)


@dataclass(frozen=True)
class Drawn:
    """A document of a task; its questions and what each expects."""

    task: str
    document: Document


def draw(
    names: Sequence[str],
    num_documents: int,
    num_questions: int,
    lengths: Sequence[int],
    first_seed: int = FIRST_SEED,
) -> Iterator[Drawn]:
    """num_documents of each task and length (in tokens), of the training split; more, where a document has fewer than
    num_questions.

    The same arguments give the same documents.
    """
    for name, num_tokens in itertools.product(names, lengths):
        task = _maker(name)(num_tokens, num_questions)
        missing, seed = num_documents * num_questions, first_seed
        while missing > 0:
            document = task.draw(random.Random(seed), Split.TRAIN)
            yield Drawn(name, document)
            missing -= len(document.questions)
            seed += 1


def share_found(said: str, question: Question) -> float:
    """Share of the question's parts that the first line of what was said holds, as whole words."""
    first_line = said.strip().partition("\n")[0]
    found = [re.search(rf"(?<!\w){re.escape(part)}(?!\w)", first_line) is not None for part in question.parts]
    return sum(found) / len(found)


def _maker(name: str) -> TaskMaker:
    return _single if name == "single" else tasks()[name]


def _single(num_tokens: int, num_questions: int = 1) -> SingleFact:
    return SingleFact(num_tokens, num_questions, num_facts=12 + num_tokens // 100)
