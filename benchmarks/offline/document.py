"""A document that was prefilled once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from offline.digest import Digests
from offline.index import StoredKeys
from windowkv_service.domain.requests import Task
from windowkv_service.kv.buffers import Staging
from windowkv_service.model.attention import Observed, PrefillView
from windowkv_service.model.loader import LoadedModel
from windowkv_service.selection import Observation, WindowSelection
from windowkv_service.selection.windowkv import published

CHUNK_TOKENS = 512


class StagedPrompt:
    """The KV of a prompt's first num_tokens tokens."""

    def __init__(self, model: LoadedModel, staging: Staging, num_tokens: int) -> None:
        self.model = model
        self.layout = model.layout
        self.num_tokens = num_tokens
        self._staging = staging

    @property
    def full_bytes(self) -> int:
        return self.layout.full_bytes(self.num_tokens)

    def keys(self, layer: int) -> Tensor:
        """[num_tokens, num_kv_heads, head_dim], of any layer, owning or reading."""
        return self._staging.keys(layer, self.num_tokens)

    def values(self, layer: int) -> Tensor:
        return self._staging.values(layer, self.num_tokens)

    def without_last(self) -> StagedPrompt:
        return StagedPrompt(self.model, self._staging, self.num_tokens - 1)


class CachedDocument(StagedPrompt):
    """The whole KV of token_ids, and what can be made of it: leader keys, digests, the published choice."""

    def __init__(self, model: LoadedModel, token_ids: Sequence[int]) -> None:
        staging = Staging(model.layout, len(token_ids), dtype=model.dtype, device=model.device)
        super().__init__(model, staging, len(token_ids))
        self._selector = published()
        self._observed = Observed(
            self._selector.observed_layers(model.layout), self._selector.observation_size
        )
        self._stored: dict[tuple[int, int], StoredKeys] = {}
        self._digests: dict[int, Digests] = {}
        for start in range(0, self.num_tokens, CHUNK_TOKENS):
            self._prefill(token_ids[start : start + CHUNK_TOKENS], start)

    @torch.inference_mode()
    def _prefill(self, token_ids: Sequence[int], start: int) -> None:
        view = PrefillView(self.layout, self._staging, start, self._observed)
        ids = torch.tensor([list(token_ids)], device=self.model.device)
        positions = torch.arange(start, start + len(token_ids), device=self.model.device)[None]
        decoder = self.model.module.get_decoder()  # type: ignore[operator]  # every causal model has it
        decoder(input_ids=ids, position_ids=positions, use_cache=False, kv_view=view)

    def stored_keys(self, layer: int, bits: int) -> StoredKeys:
        """What a leader index of so many bits per number holds of a layer."""
        if (layer, bits) not in self._stored:
            self._stored[layer, bits] = StoredKeys.of(self.keys(layer), bits)
        return self._stored[layer, bits]

    def digests(self, num_tokens: int) -> Digests:
        """One digest for every num_tokens tokens, of every layer that owns its KV."""
        if num_tokens not in self._digests:
            layers = [layer for group in self.layout.groups for layer in group.layers]
            self._digests[num_tokens] = Digests.of(
                {layer: (self.keys(layer), self.values(layer)) for layer in layers}, num_tokens
            )
        return self._digests[num_tokens]

    def published(self, budget_bytes: int) -> WindowSelection:
        """What WindowKV as published chooses before any question is known."""
        observation = Observation(
            self._observed.by_layer, self.keys, self.num_tokens, self.model.scales, self.layout
        )
        selection = self._selector.select(observation, budget_bytes=budget_bytes, task=Task.AUTO)
        assert isinstance(selection, WindowSelection)
        return selection
