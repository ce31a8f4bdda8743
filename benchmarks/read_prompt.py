"""A prompt that a model has read, shown to selectors with everything they may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from offline.document import StagedPrompt
from torch import Tensor

from windowkv_service.kv.buffers import Arenas, Staging
from windowkv_service.model.attention import Observed
from windowkv_service.model.loader import LoadedModel, ModelOptions, load
from windowkv_service.model.pruned_view import Survive
from windowkv_service.model.runner import Runner
from windowkv_service.selection import Observation, Repeated
from windowkv_service.selection.base import ALL_QUERIES


def load_by_layer(path: Path | str, window_size: int) -> LoadedModel:
    """In fp32, in blocks of window_size tokens of one layer."""
    return load(ModelOptions(str(path), "cpu", "float32", window_size, 1))


class ReadPrompt:
    """All its KV, and the queries of every layer and token."""

    def __init__(self, model: LoadedModel, token_ids: Sequence[int]) -> None:
        self._model = model
        self.layout, self._ids = model.layout, list(token_ids)
        arenas = Arenas(self.layout, {1: 1}, dtype=model.dtype, device=model.device)  # unused: prefill alone
        self._runner = Runner(model.module, self.layout, arenas, model.device)
        self._staging = self._stage(len(self._ids))
        self._observed = Observed(range(model.num_layers), ALL_QUERIES)
        self._runner.prefill(self._ids, 0, self._staging, self._observed)

    @property
    def model(self) -> LoadedModel:
        return self._model

    @property
    def num_tokens(self) -> int:
        return len(self._ids)

    def staged(self) -> StagedPrompt:
        return StagedPrompt(self._model, self._staging, len(self._ids))

    def pruned(self, survive: Survive) -> StagedPrompt:
        """Read again, in one piece; what a layer drops is computed by no layer after it."""
        staging = self._stage(len(self._ids))
        self._runner.prefill_pruned(self._ids, staging, survive)
        return StagedPrompt(self._model, staging, len(self._ids))

    def observation(self, size: int) -> Observation:
        num_tokens = len(self._ids)
        return Observation(
            {layer: queries[:, -size:] for layer, queries in self._observed.by_layer.items()},
            lambda layer: self._staging.keys(layer, num_tokens),
            num_tokens,
            self._model.scales,
            self.layout,
            values=lambda layer: self._staging.values(layer, num_tokens),
            rotary=self._rotary,
            token_ids=self._ids,
            repeat=self._repeat,
        )

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        embedding: Any = self._model.module.get_decoder().rotary_emb  # type: ignore[operator]
        cos, sin = embedding(torch.zeros(1), positions[None])
        return cos[0], sin[0]

    @torch.inference_mode()
    def _repeat(self, token_ids: Sequence[int]) -> Mapping[int, Repeated]:
        num_tokens = len(self._ids)
        longer = self._stage(num_tokens + len(token_ids))
        longer.tensor[:, :, :num_tokens] = self._staging.tensor
        observed = Observed(range(self._model.num_layers), len(token_ids))
        self._runner.prefill(token_ids, num_tokens, longer, observed)
        end = num_tokens + len(token_ids)
        return {
            layer: Repeated(queries, longer.keys(layer, end)[num_tokens:])
            for layer, queries in observed.by_layer.items()
        }

    def _stage(self, capacity: int) -> Staging:
        return Staging(self.layout, capacity, dtype=self._model.dtype, device=self._model.device)
