"""A document prefilled once and asked many times, through the worker's own parts but without its engine.

The calibration of leaders needs to see inside a question's two passes; nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import windowkv_kernels as kernels
from windowkv_kernels import QuantizedKeys
from windowkv_service.domain.requests import Task
from windowkv_service.engine.tables import BlockTables
from windowkv_service.kv.buffers import Arenas, Staging
from windowkv_service.model.attention import Observed, Terms
from windowkv_service.model.loader import LoadedModel
from windowkv_service.model.runner import Runner
from windowkv_service.selection import Observation, Selector, WindowSelection

Windows = Sequence[Sequence[int]]  # per layer group
CHUNK_TOKENS = 512


class AskedDocument:
    """All windows of token_ids in blocks of their own, and room behind them for a question and its answer."""

    def __init__(
        self, model: LoadedModel, token_ids: Sequence[int], selector: Selector, max_new_tokens: int
    ) -> None:
        self._model = model
        self.layout = layout = model.layout
        self.num_tokens = len(token_ids)
        num_windows = layout.num_windows(self.num_tokens)
        num_tail = -(-max_new_tokens // layout.window_size)
        self._block_ids, self._tail_ids, counts = _deal_blocks(model, num_windows, num_tail)
        self._arenas = Arenas(layout, counts, dtype=model.dtype, device=model.device)
        self._runner = Runner(model.module, layout, self._arenas, model.device)
        self._staging = Staging(layout, self.num_tokens, dtype=model.dtype, device=model.device)
        self._observed = Observed(selector.observed_layers(layout), selector.observation_size)
        for start in range(0, self.num_tokens, CHUNK_TOKENS):
            chunk = token_ids[start : start + CHUNK_TOKENS]
            self._runner.prefill(chunk, start, self._staging, self._observed)
        self._settle(num_windows)

    def published(self, selector: Selector, budget_bytes: int) -> WindowSelection:
        """What the selector chooses before any question is known."""
        observation = Observation(
            self._observed.by_layer, self.keys, self.num_tokens, self._model.scales, self.layout
        )
        return selector.select(observation, budget_bytes=budget_bytes, task=Task.AUTO)

    def keys(self, layer: int) -> Tensor:
        return self._staging.keys(layer, self.num_tokens)

    def quantized_keys(self, layer: int, bits: int) -> QuantizedKeys:
        return kernels.quantize_keys(self.keys(layer), bits=bits)

    def question_queries(self, question_ids: Sequence[int], windows: Windows) -> Mapping[int, Tensor]:
        """The first pass: layer → the question's queries [num_heads, m, head_dim], over the given windows."""
        heard: dict[int, Tensor] = {}

        def hear(layer: int, queries: Tensor, terms: Terms) -> None:
            heard[layer] = queries[0].clone()

        ids, positions = self._new_tokens(question_ids, 0)
        tables = self._tables(windows).rows(0, len(question_ids))
        self._runner.listen(ids, positions, tables, hear)
        return heard

    def answer(self, question_ids: Sequence[int], windows: Windows, max_tokens: int) -> list[int]:
        """The second pass: the greedy answer over the given windows, without its end token."""
        tables = self._tables(windows)
        answer: list[int] = []
        new, first = list(question_ids), 0
        while len(answer) < max_tokens:
            ids, positions = self._new_tokens(new, first)
            logits = self._runner.logits(ids, positions, tables.rows(first, first + len(new)))
            token_id = int(logits[0].argmax())
            if token_id in self._model.eos_ids:
                break
            answer.append(token_id)
            new, first = [token_id], first + len(new)
        return answer

    def _new_tokens(self, token_ids: Sequence[int], first: int) -> tuple[Tensor, Tensor]:
        start = self.num_tokens + first
        positions = torch.arange(start, start + len(token_ids), device=self._model.device)
        return torch.tensor([list(token_ids)], device=self._model.device), positions[None]

    def _tables(self, windows: Windows) -> BlockTables:
        block_ids = [
            [self._block_ids[group][window] for window in chosen] for group, chosen in enumerate(windows)
        ]
        return BlockTables(
            self.layout, windows, block_ids, self._tail_ids, self.num_tokens, self._model.device
        )

    def _settle(self, num_windows: int) -> None:
        windows = torch.arange(num_windows, device=self._model.device)
        for group in self.layout.groups:
            rows = [self._staging.rows[layer] for layer in group.layers]
            block_ids = torch.tensor(self._block_ids[group.index], device=self._model.device)
            blocks = self._arenas.of(group)
            kernels.gather_windows(self._staging.tensor, rows, windows, self.num_tokens, blocks, block_ids)


def _deal_blocks(
    model: LoadedModel, num_windows: int, num_tail: int
) -> tuple[list[list[int]], list[list[int]], dict[int, int]]:
    """Block ids of every group's windows and of its tail, and how many blocks each arena then needs."""
    counts: dict[int, int] = {}
    block_ids, tail_ids = [], []
    for group in model.layout.groups:
        arena = Arenas.arena_of(group)
        first = counts.get(arena, 0)
        counts[arena] = first + num_windows + num_tail
        block_ids.append(list(range(first, first + num_windows)))
        tail_ids.append(list(range(first + num_windows, counts[arena])))
    return block_ids, tail_ids, counts
