"""New input on a cached prompt, and the windows it chooses for itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import torch
from torch import Tensor

from windowkv_service.cache.entry import Entry
from windowkv_service.domain.requests import GenerateRequest, QuestionSelection
from windowkv_service.engine.budget import block_budget
from windowkv_service.engine.entries import claim_windows
from windowkv_service.engine.ground import Ground
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.tables import BlockTables
from windowkv_service.engine.task import TURN, Walk
from windowkv_service.kv.layout import KVLayout
from windowkv_service.model.attention import LeadersHeard, Terms
from windowkv_service.selection.base import WindowSelection
from windowkv_service.selection.question import QuestionProfile, choose_windows


class Question:
    """The tokens to run on a ground, and the private tail blocks that take their KV and the answer's.

    start: the logical position of the first of new_ids. Without new input the prompt's last token runs again, and the
    KV that the cache has of it stays unseen.
    """

    def __init__(self, ground: Ground, new_ids: Sequence[int]) -> None:
        self.ground = ground
        self.new_ids = tuple(new_ids) or (ground.prompt.token_ids[-1],)
        self.start = ground.prompt.num_tokens - (0 if new_ids else 1)
        self._tail_ids: list[list[int]] = []

    @property
    def num_prompt(self) -> int:
        """Logical length of all that comes before the answer."""
        return self.start + len(self.new_ids)

    @property
    def prompt_ids(self) -> list[int]:
        return [*self.ground.prompt.token_ids[: self.start], *self.new_ids]

    def take_tail(self, resources: Resources, num_generated: int) -> Walk[None]:
        """Blocks for the new input and num_generated tokens more: what has begun can be finished."""
        groups = self.ground.prompt.layout.groups
        per_group = ceil((len(self.new_ids) + num_generated) / self.ground.prompt.layout.window_size)
        needs: dict[int, int] = {}
        for group in groups:
            arena = resources.device.arenas.arena_of(group)
            needs[arena] = needs.get(arena, 0) + per_group
        taken = yield from resources.take_blocks(needs)
        arenas = [resources.device.arenas.arena_of(group) for group in groups]
        self._tail_ids = [[taken[arena].pop() for _ in range(per_group)] for arena in arenas]

    def release_tail(self, resources: Resources) -> None:
        for group, ids in zip(self.ground.prompt.layout.groups, self._tail_ids, strict=False):
            resources.device.pool(group).release(ids)
        self._tail_ids = []

    def tail_bytes(self, end: int) -> int:
        """What of the tail holds the KV of tokens before the logical position end, whole blocks counted."""
        layout = self.ground.prompt.layout
        return layout.num_windows(end - self.start) * sum(map(layout.block_bytes, layout.groups))

    def tables(self, resources: Resources) -> BlockTables:
        claim = self.ground.claim
        layout, device = self.ground.prompt.layout, resources.model.device
        strips = claim.prompt.strips
        return BlockTables(layout, claim.windows, claim.blocks, self._tail_ids, self.start, device, strips)

    def chunks(self, resources: Resources) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(first, token ids [1, m], positions [1, m]) of the new input, piece by piece."""
        size, device = resources.limits.chunk_tokens, resources.model.device
        for first in range(0, len(self.new_ids), size):
            ids = torch.tensor([self.new_ids[first : first + size]], device=device)
            yield first, ids, self.start + torch.arange(first, first + ids.shape[1], device=device)[None]


class Listener:
    """Hears the leaders' queries of a question's last tokens, over as many chunks as it takes.

    queries: leader layer → [num_heads, at most profile.vote_tokens, head_dim].
    """

    def __init__(self, profile: QuestionProfile) -> None:
        self._layers = frozenset(profile.layers)
        self._last_layer = max(self._layers)
        self._num_votes = profile.vote_tokens
        self.queries: dict[int, Tensor] = {}
        self.terms: dict[int, Terms] = {}

    def __call__(self, layer: int, queries: Tensor, terms: Terms) -> None:
        if layer in self._layers:
            seen = self.queries.get(layer)
            joined = queries[0] if seen is None else torch.cat([seen, queries[0]], dim=1)
            self.queries[layer] = joined[:, -self._num_votes :]
            self.terms[layer] = terms
        if layer == self._last_layer:
            raise LeadersHeard


def choose_ground(resources: Resources, request: GenerateRequest, question: Question) -> Walk[None]:
    """Let the question choose its windows where it is the one to choose."""
    ground = question.ground
    if ground.mode is QuestionSelection.QUESTION:
        assert ground.entry is not None
        selection = yield from _listen(resources, request, question)
        ground.claim = yield from claim_windows(
            resources, ground.entry, ground.prompt, selection.windows, ground.report, former=ground.claim
        )
        ground.fidelity = selection.fidelity
    if ground.mode is not QuestionSelection.PUBLISHED:
        resources.metrics.requests.selected(ground.mode)


def _listen(resources: Resources, request: GenerateRequest, question: Question) -> Walk[WindowSelection]:
    """The first pass, over the windows that the cache holds anyway; the leaders' queries score all windows."""
    ground = question.ground
    assert ground.index is not None
    assert ground.entry is not None
    profile = ground.index.profile
    listener, tables = Listener(profile), question.tables(resources)
    for first, ids, positions in question.chunks(resources):
        yield TURN
        resources.runner.listen(ids, positions, tables.rows(first, first + ids.shape[1]), listener)
    layout, num_tokens = ground.prompt.layout, ground.prompt.num_tokens
    scores = {
        layer: profile.score(
            queries,
            ground.index.keys[layer],
            window_size=layout.window_size,
            scale=listener.terms[layer].scale,
            softcap=listener.terms[layer].softcap,
        )
        for layer, queries in listener.queries.items()
    }
    kept_ratio = request.kept_ratio or ground.entry.compression.kept_ratio
    budget = block_budget(ground.prompt, kept_ratio, ground.index.size_bytes)
    return choose_windows(scores, profile, layout, num_tokens, budget, forced=_held(ground.entry, layout))


def _held(entry: Entry, layout: KVLayout) -> frozenset[int]:
    """What the device holds of every selectable group, whatever a question chooses."""
    return frozenset(entry.resident[layout.selectable_groups[0].index])
