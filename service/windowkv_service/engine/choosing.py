"""Which windows an answer reads: chosen by its question, and chosen again while it grows.

A choice takes a pass of its own over the windows that are there: it runs the tokens that vote only as far as the last
leader layer, whose queries score all windows of the prompt. What the pass writes to the tail is written again by the
pass that follows. Answers whose last token alone votes listen together. KV of the tail that was computed under an
earlier choice stays as it is; it never passes for exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from windowkv_service.domain.requests import GenerateRequest, QuestionSelection
from windowkv_service.engine.budget import block_budget
from windowkv_service.engine.entries import claim_windows
from windowkv_service.engine.listener import Listener
from windowkv_service.engine.question import Question
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.sequence import Decoding, Sequence
from windowkv_service.engine.tables import BlockTables
from windowkv_service.engine.task import TURN, Walk
from windowkv_service.kv.sending import on_device
from windowkv_service.selection.base import WindowSelection
from windowkv_service.selection.fidelity import widen
from windowkv_service.selection.question import choose_windows


class Choosing:
    """The choices of one answer, on a ground whose mode says that the question makes them."""

    def __init__(self, resources: Resources, request: GenerateRequest, question: Question) -> None:
        self._resources = resources
        self._question = question
        self._ground = ground = question.ground
        self._is_ours = ground.mode is QuestionSelection.QUESTION
        self._every = 0
        if self._is_ours:
            assert ground.entry is not None and ground.index is not None
            self._entry, self._index, self._profile = ground.entry, ground.index, ground.index.profile
            self._held = frozenset(ground.claim.windows[ground.prompt.layout.selectable_groups[0].index])
            kept_ratio = request.kept_ratio or ground.entry.compression.kept_ratio
            self._budget_bytes = block_budget(ground.prompt, kept_ratio, ground.index.size_bytes)
            self._min_fidelity = request.min_fidelity or ground.entry.compression.min_fidelity
            asked = request.reselect_every
            self._every = self._profile.reselect_every if asked is None else asked

    def first(self) -> Walk[None]:
        """By the question, before it is answered."""
        if self._is_ours:
            listener = Listener(self._profile, self._profile.vote_tokens)
            tables = self._question.tables(self._resources)
            for first, ids, positions in self._question.chunks(self._resources):
                yield from self._listen(listener, tables, first, ids, positions)
            yield from self._choose(listener)
        if self._ground.mode is not QuestionSelection.PUBLISHED:
            self._resources.metrics.requests.selected(self._ground.mode)

    def due(self, num_generated: int) -> int | None:
        """After how many generated tokens the next choice is made; None: never."""
        return num_generated + self._every if self._every else None

    def again(self, sequence: Sequence) -> Walk[None]:
        """By the last tokens of the answer so far, which is not decoding meanwhile."""
        num_votes = min(self._profile.vote_tokens, self._every, sequence.num_generated)
        listener = Listener(self._profile, num_votes)
        if num_votes == 1:
            yield Decoding(sequence, listener)
        else:
            yield from self._listen_alone(listener, sequence, num_votes)
        if (yield from self._choose(listener)):
            sequence.tables = self._question.tables(self._resources)

    def _listen_alone(self, listener: Listener, sequence: Sequence, num_votes: int) -> Walk[None]:
        first = sequence.position + 1 - num_votes
        device = self._resources.model.device
        ids = on_device([sequence.sampler.generated_ids[-num_votes:]], device)
        positions = torch.arange(first, first + num_votes, device=device)[None]
        place = first - sequence.tables.tail_start
        yield from self._listen(listener, sequence.tables, place, ids, positions)

    def _listen(
        self, listener: Listener, tables: BlockTables, first: int, ids: Tensor, positions: Tensor
    ) -> Walk[None]:
        """Run ids [1, m] at positions [1, m], from the tail's first-th token on."""
        yield TURN
        layers = frozenset(self._profile.layers)
        for layer, (queries, terms) in self._resources.passes.listen(
            tables, first, ids, positions, layers
        ).items():
            listener.hear(layer, queries[0], terms)

    def _choose(self, listener: Listener) -> Walk[bool]:
        """Let the voters choose and bring what they chose; whether that is something else than before."""
        selection, ground = self._select(listener), self._ground
        if is_new := list(map(tuple, ground.claim.windows)) != list(selection.windows):
            ground.claim = yield from claim_windows(
                self._resources,
                self._entry,
                ground.prompt,
                selection.windows,
                ground.report,
                former=ground.claim,
            )
        ground.chosen(selection.fidelity)
        return is_new

    def _select(self, listener: Listener) -> WindowSelection:
        """Of the windows before the question: what runs again is read from the tail. Where that is all, of the first:
        a table is never empty."""
        layout, num_tokens = self._ground.prompt.layout, max(1, self._question.start)
        num_windows = layout.num_windows(num_tokens)
        scores = {
            layer: self._profile.score(
                queries,
                self._index.keys[layer],
                window_size=layout.window_size,
                scale=listener.terms[layer].scale,
                softcap=listener.terms[layer].softcap,
            ).first(num_windows)
            for layer, queries in listener.queries.items()
        }
        held = frozenset(window for window in self._held if window < num_windows)
        chosen = choose_windows(scores, self._profile, layout, num_tokens, self._budget_bytes, forced=held)
        return widen(chosen, layout, self._min_fidelity)
