"""Documents with their questions and answers → token ids, labels and answer positions."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from windowkv_service.model.builtin.documents import Document, Question, answer_text, question_suffix
from windowkv_service.model.builtin.documents.lexicon import NAMES

IGNORED = -100  # a label that has no loss
_TERSE_REPEATS = 3


@dataclass(frozen=True)
class Batch:
    """Right-padded sequences; all tensors are [num_sequences, num_tokens].

    labels holds what must follow each token. answers holds 0 where that is no part of an answer, otherwise which
    answer of the sequence it is part of, from 1. choices does the same for the labels that may change places within
    their answer.
    """

    token_ids: Tensor
    labels: Tensor
    answers: Tensor
    choices: Tensor


@dataclass
class _Sequence:
    token_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    choices: list[int] = field(default_factory=list)

    def append(self, token_ids: list[int], labels: list[int], answers: list[int], choices: list[int]) -> None:
        self.token_ids += token_ids
        self.labels += labels
        self.answers += answers
        self.choices += choices


class Packer:
    """Packs documents for training, all questions of a document behind it in one sequence."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def batch(self, rng: random.Random, documents: Sequence[Document], terse_ratio: float) -> Batch:
        """One batch; `terse_ratio` of the documents are asked with bare names."""
        sequences = [self._sequence(rng, document, rng.random() < terse_ratio) for document in documents]
        longest = max(len(each.token_ids) for each in sequences)
        rows = [(each, longest - len(each.token_ids)) for each in sequences]
        pad = self._tokenizer.pad_token_id
        return Batch(
            torch.tensor([each.token_ids + [pad] * missing for each, missing in rows]),
            torch.tensor([each.labels + [IGNORED] * missing for each, missing in rows]),
            torch.tensor([each.answers + [0] * missing for each, missing in rows]),
            torch.tensor([each.choices + [0] * missing for each, missing in rows]),
        )

    def _sequence(self, rng: random.Random, document: Document, terse: bool) -> _Sequence:
        """<bos>, the document, its questions with answers.

        An answer's label is always closed by <eos>, but half of the sequences go on without that token: in the
        service the next question may follow either way.
        """
        token_ids = [self._tokenizer.bos_token_id, *self._ids(document.text)]
        nothing = [0] * len(token_ids)
        sequence = _Sequence(token_ids, [*token_ids[1:], IGNORED], nothing.copy(), nothing.copy())
        eos = self._tokenizer.eos_token_id
        tail = [eos] if rng.random() < 0.5 else []
        questions = document.questions * (_TERSE_REPEATS if terse else 1)
        for number, question in enumerate(rng.sample(questions, len(questions)), start=1):
            suffix = self._ids(_terse_suffix(question) if terse else question_suffix(question.text))
            answer = self._ids(answer_text(question.answer))
            free = {self._ids(answer_text(part))[0] for part in question.parts if question.any_order}
            sequence.append(
                [*suffix, *answer, *tail],
                [*suffix[1:], *answer, eos, *(IGNORED for _ in tail)],
                [0] * (len(suffix) - 1) + [number] * (len(answer) + 1) + [0] * len(tail),
                [0] * (len(suffix) - 1)
                + [number * (each in free) for each in answer]
                + [0] * (1 + len(tail)),
            )
        return sequence

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)


def _terse_suffix(question: Question) -> str:
    """The name alone: the answer follows it at once."""
    return "\n " + next(word for word in question.text.rstrip("?").split() if word in NAMES)
