"""Passes over a sequence's new tokens: a question, or the last tokens of an answer that are to be heard.

Short ones run over static memory, on a GPU as CUDA graphs: they are what a question waits for before its first token.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from windowkv_service.engine.tables import BlockTables
from windowkv_service.model.attention import LayerTables, LeadersHeard
from windowkv_service.model.decode_steps import PADDED
from windowkv_service.model.graphs import Graphs, Hold
from windowkv_service.model.pass_buffers import PassBuffers
from windowkv_service.model.prompt_attention import Terms
from windowkv_service.model.runner import Runner

LENGTHS = (16, 64, 256)  # tokens that graphs are made for; a longer pass takes a GPU longer than its launches
MAX_HELD = 32
Heard = dict[
    int, tuple[Tensor, Terms]
]  # layer → queries [1, num_heads, m, head_dim], and what it attends with


@dataclass(frozen=True)
class _Held:
    buffers: PassBuffers
    run: Callable[[], object]


class Passes:
    """hold None: every pass runs as it comes."""

    def __init__(
        self, runner: Runner, window_size: int, device: torch.device, hold: Hold | None = None
    ) -> None:
        self._runner = runner
        self._window_size = window_size
        self._device = device
        self._hold = hold
        self._held: OrderedDict[object, _Held] = OrderedDict()  # least recently used first

    @classmethod
    def on(cls, runner: Runner, window_size: int, device: torch.device) -> Passes:
        """As the device wants it."""
        return cls(runner, window_size, device, Graphs(device) if device.type == "cuda" else None)

    def logits(self, tables: BlockTables, first: int, token_ids: Tensor, positions: Tensor) -> Tensor:
        """Run token_ids [1, m] at positions [1, m], the tail's from the first-th on; [1, vocab_size] of the last one,
        overwritten by the next pass."""
        if (length := self._bucket(token_ids)) is None:
            return self._runner.logits(token_ids, positions, tables.rows(first, first + token_ids.shape[1]))

        def make(buffers: PassBuffers) -> Callable[[], Tensor]:
            return lambda: self._runner.logits(
                buffers.token_ids, buffers.positions, buffers.tables(), buffers.last
            )

        logits = self._run("logits", length, tables, first, token_ids, positions, make)
        assert isinstance(logits, Tensor)
        return logits

    def listen(
        self,
        tables: BlockTables,
        first: int,
        token_ids: Tensor,
        positions: Tensor,
        layers: frozenset[int],
    ) -> Heard:
        """The queries of these layers, for the same tokens; what comes after the last of them is not run."""
        num_tokens = token_ids.shape[1]
        if (length := self._bucket(token_ids)) is None:
            return self._heard(token_ids, positions, tables.rows(first, first + num_tokens), layers)

        def make(buffers: PassBuffers) -> Callable[[], Heard]:
            return lambda: self._heard(buffers.token_ids, buffers.positions, buffers.tables(), layers)

        heard = self._run(layers, length, tables, first, token_ids, positions, make)
        assert isinstance(heard, dict)
        return {
            layer: (queries[:, :, :num_tokens].clone(), terms) for layer, (queries, terms) in heard.items()
        }

    def _heard(
        self, token_ids: Tensor, positions: Tensor, tables: Mapping[int, LayerTables], layers: frozenset[int]
    ) -> Heard:
        heard: Heard = {}

        def hear(layer: int, queries: Tensor, terms: Terms) -> None:
            if layer in layers:
                heard[layer] = queries, terms
            if layer == max(layers):
                raise LeadersHeard

        self._runner.listen(token_ids, positions, tables, hear)
        return heard

    def _bucket(self, token_ids: Tensor) -> int | None:
        """Tokens of the graph that takes these; None where none does."""
        if self._hold is None:
            return None
        return next((length for length in LENGTHS if token_ids.shape[1] <= length), None)

    def _run(
        self,
        kind: object,
        length: int,
        tables: BlockTables,
        first: int,
        token_ids: Tensor,
        positions: Tensor,
        make: Callable[[PassBuffers], Callable[[], object]],
    ) -> object:
        assert self._hold is not None
        shapes = tuple(PADDED.shape(stack.shape) for stack in tables.alone)
        key = (kind, length, shapes)
        if key not in self._held:
            if len(self._held) == MAX_HELD:
                self._forget()
            buffers = PassBuffers(shapes, length, self._window_size, self._device)
            # Held while there is nothing in it: what runs before a capture writes nothing.
            self._held[key] = _Held(buffers, self._hold(make(buffers)))
        self._held.move_to_end(key)
        held = self._held[key]
        held.buffers.take(tables.alone, first, token_ids, positions)
        return held.run()

    def _forget(self) -> None:
        """Let go of a graph, once nothing of it runs any more."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        self._held.popitem(last=False)
