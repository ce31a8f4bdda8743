"""New input on a cached prompt, and the room for its KV and the answer's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import torch
from torch import Tensor

from windowkv_service.engine.ground import Ground
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.tables import BlockTables
from windowkv_service.engine.task import Walk
from windowkv_service.kv.sending import on_device


class Question:
    """The tokens to run on a ground, and the private tail blocks that take their KV and the answer's.

    start: the logical position of the first of new_ids. Without new input the prompt's last tokens run again, and the
    KV that the cache has of them stays unseen.
    """

    def __init__(self, ground: Ground, new_ids: Sequence[int]) -> None:
        self.ground = ground
        prompt = ground.prompt
        self.new_ids = tuple(new_ids) or tuple(prompt.token_ids[-ground.num_again :])
        self.start = prompt.num_tokens - (0 if new_ids else len(self.new_ids))
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
            ids = on_device([self.new_ids[first : first + size]], device)
            yield first, ids, self.start + torch.arange(first, first + ids.shape[1], device=device)[None]
