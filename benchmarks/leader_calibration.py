"""Candidate question profiles, put to the same questions about the same prefilled documents."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import torch
from asked_document import AskedDocument

from windowkv_kernels import WindowScores
from windowkv_service.kv.layout import KVLayout
from windowkv_service.model.builtin.documents import SingleFact, Split, answer_text, question_suffix
from windowkv_service.model.loader import LoadedModel
from windowkv_service.selection import Leader, QuestionProfile, choose_windows, default_profile
from windowkv_service.selection.windowkv import published

DEVELOPMENT_SEED = 770_000
MAX_ANSWER_TOKENS = 8
MAX_NEW_TOKENS = 96
GOOD_ENOUGH = 0.99  # of the full cache's score: among leaders as good as this the fewest win
CLEARLY_BETTER = 0.005  # mean score; an option leaves its safer value only for more than this

# What is tried of each option, the safest first.
OPTIONS: dict[str, tuple[object, ...]] = {
    "keep_last_windows": (1, 0, 2),
    "keep_first": (True, False),
    "vote_tokens": (16, 8, 4, 2, 1),
    "top_p": (None, 8, 4, 2, 1),
    "index_bits": (4, 8),
}


@dataclass
class Tally:
    """Right answers and captured attention over all questions, at one kept ratio."""

    num_right: int = 0
    num_asked: int = 0
    fidelity_sum: float = 0.0

    def count(self, is_right: bool, fidelity: float) -> None:
        self.num_right += is_right
        self.num_asked += 1
        self.fidelity_sum += fidelity

    @property
    def score(self) -> float:
        return self.num_right / max(1, self.num_asked)

    @property
    def fidelity(self) -> float:
        return self.fidelity_sum / max(1, self.num_asked)


@dataclass
class Row:
    """One way to choose windows, and how it did at each kept ratio."""

    name: str
    profile: QuestionProfile | None
    tallies: dict[float, Tally]

    @property
    def score(self) -> float:
        return mean(tally.score for tally in self.tallies.values())

    @property
    def fidelity(self) -> float:
        return mean(tally.fidelity for tally in self.tallies.values())


@dataclass(frozen=True)
class Asked:
    """A question put to a prefilled document. queries: what its first pass heard, by layer."""

    document: AskedDocument
    question_ids: list[int]
    answer_ids: list[int]
    queries: Mapping[int, torch.Tensor]


def leader_candidates(layout: KVLayout) -> Iterator[tuple[str, QuestionProfile]]:
    """Every layer as the leader of all; teams of half, a quarter … of the layers, led from one place; the default."""
    groups = layout.selectable_groups
    num_teams = 1
    while num_teams <= len(groups):
        size = -(-len(groups) // num_teams)
        teams = [groups[start : start + size] for start in range(0, len(groups), size)]
        members = [[layer for group in team for layer in group.layers] for team in teams]
        for place in range(max(map(len, members))):
            led = [
                Leader(layers[min(place, len(layers) - 1)], tuple(group.index for group in team))
                for layers, team in zip(members, teams, strict=True)
            ]
            yield f"{len(led)} × layer {place} of {len(members[0])}", QuestionProfile(tuple(led))
        num_teams *= 2
    yield "default rule", default_profile(layout)


class Calibration:
    """Prefills the development documents once and puts every profile to the same questions."""

    def __init__(
        self,
        model: LoadedModel,
        num_documents: int,
        num_questions: int,
        num_tokens: int,
        kept_ratios: Sequence[float],
    ) -> None:
        self.model = model
        self.layout = model.layout
        self.kept_ratios = kept_ratios
        self.full = Row("full cache", None, {1.0: Tally()})
        self.published = Row("published choice", None, {ratio: Tally() for ratio in kept_ratios})
        self.asked: list[Asked] = []
        for number in range(num_documents):
            task = SingleFact(num_tokens, num_questions, num_facts=12 + num_tokens // 100)
            drawn = task.draw(random.Random(DEVELOPMENT_SEED + number), Split.TRAIN)
            token_ids = model.tokenizer.tokenize(drawn.text, add_special_tokens=True)
            document = AskedDocument(model, token_ids, published(), MAX_NEW_TOKENS)
            for question in drawn.questions:
                self._ask(document, question.text, question.answer)

    def measure(self, name: str, profile: QuestionProfile) -> Row:
        row = Row(name, profile, {ratio: Tally() for ratio in self.kept_ratios})
        for asked in self.asked:
            scores = self._scores(profile, asked)
            for ratio, tally in row.tallies.items():
                num_tokens = asked.document.num_tokens
                budget = self._budget(num_tokens, ratio) - profile.index_bytes(self.layout, num_tokens)
                chosen = choose_windows(scores, profile, self.layout, num_tokens, budget)
                tally.count(self._is_right(asked, chosen.windows), chosen.fidelity)
        return row

    def _ask(self, document: AskedDocument, question: str, answer: str) -> None:
        """Counts the full cache and the published choice, and hears the first pass over the latter at its largest."""
        tokenize = self.model.tokenizer.tokenize
        question_ids = tokenize(question_suffix(question), add_special_tokens=False)
        answer_ids = tokenize(answer_text(answer), add_special_tokens=False)
        before = {
            ratio: document.published(published(), self._budget(document.num_tokens, ratio))
            for ratio in self.kept_ratios
        }
        queries = document.question_queries(question_ids, before[max(self.kept_ratios)].windows)
        asked = Asked(document, question_ids, answer_ids, queries)
        self.asked.append(asked)
        everything = [
            tuple(self.layout.full_windows(group, document.num_tokens)) for group in self.layout.groups
        ]
        self.full.tallies[1.0].count(self._is_right(asked, everything), 1.0)
        for ratio, tally in self.published.tallies.items():
            tally.count(self._is_right(asked, before[ratio].windows), before[ratio].fidelity)

    def _scores(self, profile: QuestionProfile, asked: Asked) -> dict[int, WindowScores]:
        return {
            layer: profile.score(
                asked.queries[layer],
                asked.document.quantized_keys(layer, profile.index_bits),
                window_size=self.layout.window_size,
                scale=self.model.scales[layer],
                softcap=self.model.softcap,
            )
            for layer in profile.layers
        }

    def _is_right(self, asked: Asked, windows: Sequence[Sequence[int]]) -> bool:
        return asked.document.answer(asked.question_ids, windows, MAX_ANSWER_TOKENS) == asked.answer_ids

    def _budget(self, num_tokens: int, kept_ratio: float) -> int:
        return int(kept_ratio * self.layout.full_bytes(num_tokens))


def best_leaders(rows: Sequence[Row], full: Row) -> Row:
    """The fewest leaders among those as good as the full cache; else the best score; then the highest fidelity."""

    def worth(row: Row) -> tuple[float, int, float]:
        assert row.profile is not None
        return min(row.score, GOOD_ENOUGH * full.score), -len(row.profile.leaders), row.score + row.fidelity

    return max(rows, key=worth)


def tune(calibration: Calibration, leaders: Row) -> Iterator[Row]:
    """One option after the other, from the leaders found; the last row is the profile to keep."""
    best = leaders
    for option, values in OPTIONS.items():
        for value in values:
            assert best.profile is not None
            if getattr(best.profile, option) == value:
                continue
            changed: dict[str, Any] = {option: value}
            row = calibration.measure(f"{option} {value}", replace(best.profile, **changed))
            yield row
            if row.score > best.score + CLEARLY_BETTER:
                best = row
    yield Row("kept", best.profile, best.tallies)
