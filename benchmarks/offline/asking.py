"""A question to a cached document, answered once per chooser, all of them side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from offline.chooser import Chooser
from offline.document import CachedDocument
from offline.rows import Rows
from windowkv_service.model.attention import LeadersHeard


@dataclass(frozen=True)
class Answer:
    """token_ids: without the end token. fidelity: of the question's own choice. size_bytes: the most that was held.

    num_listened: passes that only listened.
    """

    token_ids: list[int]
    fidelity: float
    size_bytes: int
    num_listened: int


class Asking:
    """One batch of rows through a question and its greedy answer, as the engine goes, choosing where it would."""

    def __init__(self, document: CachedDocument, choosers: Sequence[Chooser], kept_ratio: float) -> None:
        self._document = document
        self._choosers = choosers
        self._kept_ratio = kept_ratio
        self._rows = Rows(document, len(choosers))
        self._choices = [chooser.begin(document, kept_ratio) for chooser in choosers]
        self._held = [choice.size_bytes for choice in self._choices]
        self._listened = [0] * len(choosers)
        self._spoken: dict[int, Tensor] = {}  # leader → queries [R, H, t, D] of the tokens that were run
        self._led = {layer for chooser in choosers for layer in chooser.layers}
        self._rows.read(self._choices)

    def answer(self, question_ids: Sequence[int], max_tokens: int) -> list[Answer]:
        new = torch.tensor([list(question_ids)] * len(self._choosers))
        voters = [chooser.vote_tokens for chooser in self._choosers]
        for number in range(max((chooser.passes for chooser in self._choosers), default=0)):
            self._listen(new, [number < chooser.passes for chooser in self._choosers], voters)
        midway = [chooser.chooses_midway for chooser in self._choosers]
        logits = self._run(new, midway, voters)
        fidelities = [choice.fidelity for choice in self._choices]
        said = self._say(logits, max_tokens)
        return [Answer(*row) for row in zip(said, fidelities, self._held, self._listened, strict=True)]

    def _say(self, logits: Tensor, max_tokens: int) -> list[list[int]]:
        """The greedy answers from the logits behind the question on."""
        said: list[list[int]] = [[] for _ in self._choosers]
        is_over = [False] * len(said)
        voters = [chooser.recent_voters for chooser in self._choosers]
        while True:
            new = logits.argmax(-1)
            for row, token_id in enumerate(new.tolist()):
                is_over[row] |= token_id in self._document.model.eos_ids
                if not is_over[row]:
                    said[row].append(token_id)
                    is_over[row] = len(said[row]) == max_tokens
            if all(is_over):
                return said
            due = [
                not over and chooser.reselect_every > 0 and len(answer) % chooser.reselect_every == 0
                for over, chooser, answer in zip(is_over, self._choosers, said, strict=True)
            ]
            listens = [
                is_due and not chooser.chooses_midway
                for is_due, chooser in zip(due, self._choosers, strict=True)
            ]
            if any(listens):
                self._listen(new[:, None], listens, voters)
            midway = [is_due and not heard for is_due, heard in zip(due, listens, strict=True)]
            logits = self._run(new[:, None], midway, voters)

    def _listen(self, token_ids: Tensor, is_due: Sequence[bool], voters: Sequence[int]) -> None:
        """A pass up to the last leader, after which the rows that are due choose."""
        due = [row for row, due in enumerate(is_due) if due]
        last = max(layer for row in due for layer in self._choosers[row].layers)
        heard: dict[int, Tensor] = {}

        def on_queries(layer: int, queries: Tensor) -> None:
            if layer in self._led:
                heard[layer] = queries
            if layer == last:
                raise LeadersHeard

        self._rows.listen(token_ids, on_queries)
        self._choose(due, heard, voters)
        for row in due:
            self._listened[row] += 1

    def _run(self, token_ids: Tensor, is_midway: Sequence[bool], voters: Sequence[int]) -> Tensor:
        """A pass that is kept; rows that choose midway do so at their leader. → logits [R, vocab_size]."""
        heard: dict[int, Tensor] = {}

        def on_queries(layer: int, queries: Tensor) -> None:
            if layer not in self._led:
                return
            heard[layer] = queries
            choosing = [
                row for row, due in enumerate(is_midway) if due and self._choosers[row].layers == (layer,)
            ]
            if choosing:
                self._choose(choosing, heard, voters)

        logits = self._rows.run(token_ids, on_queries)
        for layer, queries in heard.items():
            spoken = self._spoken.get(layer)
            self._spoken[layer] = queries if spoken is None else torch.cat([spoken, queries], dim=2)
        return logits

    def _choose(self, rows: Sequence[int], heard: Mapping[int, Tensor], voters: Sequence[int]) -> None:
        for row in rows:
            chooser = self._choosers[row]
            queries = {layer: self._last(layer, heard[layer], row, voters[row]) for layer in chooser.layers}
            choice = chooser.choose(self._document, self._kept_ratio, queries)
            self._choices[row] = choice
            self._held[row] = max(self._held[row], choice.size_bytes)
        self._rows.read(self._choices)

    def _last(self, layer: int, heard: Tensor, row: int, num_voters: int) -> Tensor:
        """The queries [H, at most num_voters, D] of the last tokens, those heard now and those run before."""
        spoken = self._spoken.get(layer)
        queries = heard[row] if spoken is None else torch.cat([spoken[row], heard[row]], dim=1)
        return queries[:, -num_voters:]
