"""Many choosers, put to the same questions about the same documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from offline.asking import Answer, Asking
from offline.chooser import Chooser
from offline.development import SPARE_TOKENS, Drawn, share_found
from offline.document import CachedDocument
from offline.result import Result, Tally
from offline.trial import Trial
from windowkv_service.model.builtin.documents import Question, answer_text, question_suffix
from windowkv_service.model.loader import LoadedModel


@dataclass(frozen=True)
class _Asked:
    """A question about a document, as tokens."""

    task: str
    number: int  # of the document
    document: CachedDocument
    question: Question
    token_ids: list[int]
    max_tokens: int


class Measurement:
    """Prefills the documents once; what it measures later shares them."""

    def __init__(self, model: LoadedModel, drawn: Sequence[Drawn], kept_ratios: Sequence[float]) -> None:
        self.model = model
        self.kept_ratios = tuple(kept_ratios)
        self._asked: list[_Asked] = []
        tokenize = model.tokenizer.tokenize
        for number, each in enumerate(drawn):
            document = CachedDocument(model, tokenize(each.document.text, add_special_tokens=True))
            for question in each.document.questions:
                token_ids = tokenize(question_suffix(question.text), add_special_tokens=False)
                expected = tokenize(answer_text(question.answer), add_special_tokens=False)
                most = len(expected) + SPARE_TOKENS
                self._asked.append(_Asked(each.task, number, document, question, token_ids, most))

    @property
    def num_questions(self) -> int:
        return len(self._asked)

    def measure(
        self,
        choosers: Mapping[str, Chooser],
        *,
        kept_ratios: Sequence[float] | None = None,
        tasks: Sequence[str] | None = None,
    ) -> list[Result]:
        """One result per chooser, in their order. kept_ratios: None: all. tasks: only these; None: all."""
        results = {name: Result(name, chooser) for name, chooser in choosers.items()}
        for asked in self._asked:
            if tasks is not None and asked.task not in tasks:
                continue
            for ratio in self.kept_ratios if kept_ratios is None else kept_ratios:
                for batch in _batches(choosers):
                    self._ask(asked, ratio, batch, results)
        return list(results.values())

    def _ask(
        self, asked: _Asked, ratio: float, batch: Mapping[str, Chooser], results: Mapping[str, Result]
    ) -> None:
        asking = Asking(asked.document, list(batch.values()), ratio)
        for name, answer in zip(batch, asking.answer(asked.token_ids, asked.max_tokens), strict=True):
            results[name].add(ratio, asked.task, asked.number, self._tally(asked, answer))

    def _tally(self, asked: _Asked, answer: Answer) -> Tally:
        said = self.model.tokenizer.detokenize(answer.token_ids)
        held = answer.size_bytes / asked.document.full_bytes
        score = share_found(said, asked.question)
        return Tally(score, answer.fidelity, held, answer.num_listened, len(answer.token_ids))


def _batches(choosers: Mapping[str, Chooser]) -> list[dict[str, Chooser]]:
    """Digests of one size per batch: its rows are padded to one length."""
    batches: dict[int, dict[str, Chooser]] = {}
    for name, chooser in choosers.items():
        size = chooser.digest_tokens if isinstance(chooser, Trial) else 0
        batches.setdefault(size, {})[name] = chooser
    return list(batches.values())
