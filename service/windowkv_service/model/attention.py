"""The attention function that Hugging Face modules call, and the views it finds its KV through.

A view is given to each model call as `kv_view=…` (transformers passes extra arguments on to the attention function,
AttentionInterface). It knows where the KV of the sequences in this call lives; the module knows nothing of it.
Without a mask function of the same name transformers makes no mask: visibility is the view's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

import windowkv_kernels as kernels
from windowkv_service.kv.buffers import Arenas, Staging
from windowkv_service.kv.layout import KVLayout

ATTENTION_NAME = "windowkv"


@dataclass(frozen=True)
class Terms:
    """What a layer's attention is computed with; sinks is [num_heads] or None."""

    scale: float
    sliding_window: int | None
    softcap: float | None
    sinks: Tensor | None


class KVView(Protocol):
    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, terms: Terms) -> Tensor:
        """queries [B, H, m, D], keys and values [B, Hkv, m, D] of the new tokens, after RoPE → output [B, H, m, D]."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    kv_view: KVView,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The AttentionInterface contract: returns [B, m, H, D] and no weights."""
    terms = Terms(scaling, sliding_window, softcap, s_aux)
    layer = module.layer_idx
    assert isinstance(layer, int)
    return kv_view.attend(layer, query, key, value, terms).transpose(1, 2), None


AttentionInterface.register(ATTENTION_NAME, attend)


class Observed:
    """The last num_tokens queries of chosen layers, kept while a prompt is prefilled chunk by chunk.

    by_layer: layer → [num_heads, at most num_tokens, head_dim].
    """

    def __init__(self, layers: Sequence[int], num_tokens: int) -> None:
        self.layers = frozenset(layers)
        self.num_tokens = num_tokens
        self.by_layer: dict[int, Tensor] = {}

    def see(self, layer: int, queries: Tensor) -> None:
        if layer not in self.layers or self.num_tokens == 0:
            return
        seen = self.by_layer.get(layer)
        joined = queries if seen is None else torch.cat([seen, queries], dim=1)
        self.by_layer[layer] = joined[:, -self.num_tokens :].clone()


class PrefillView:
    """One prompt, tokens start … start + m of it: KV goes to staging, queries see all of staging up to themselves."""

    def __init__(self, layout: KVLayout, staging: Staging, start: int, observed: Observed) -> None:
        self._layout = layout
        self._staging = staging
        self._start = start
        self._observed = observed
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, terms: Terms) -> Tensor:
        if self._layout.owners[layer] == layer:
            self._staging.write(layer, self._start, keys[0].transpose(0, 1), values[0].transpose(0, 1))
        self._observed.see(layer, queries[0])
        end = self._start + queries.shape[2]
        mask = self._mask(queries.shape[2], end, terms.sliding_window, queries.device)
        seen_keys = self._staging.keys(layer, end).transpose(0, 1).unsqueeze(0)
        seen_values = self._staging.values(layer, end).transpose(0, 1).unsqueeze(0)
        if terms.softcap is None and terms.sinks is None:
            return scaled_dot_product_attention(
                queries, seen_keys, seen_values, attn_mask=mask, scale=terms.scale, enable_gqa=True
            )
        return _plain_attention(queries, seen_keys, seen_values, mask, terms)

    def _mask(self, num_queries: int, end: int, sliding_window: int | None, device: torch.device) -> Tensor:
        if sliding_window not in self._masks:
            query_positions = torch.arange(end - num_queries, end, device=device)[:, None]
            key_positions = torch.arange(end, device=device)[None, :]
            visible = key_positions <= query_positions
            if sliding_window is not None:
                visible &= key_positions > query_positions - sliding_window
            self._masks[sliding_window] = visible
        return self._masks[sliding_window]


def _plain_attention(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor, terms: Terms) -> Tensor:
    """Attention with soft-capped scores or attention sinks, which the fused kernels do not know."""
    batch, num_heads, num_queries, head_dim = queries.shape
    packed = queries.view(batch, keys.shape[1], -1, num_queries, head_dim)
    scores = torch.einsum("bkgqd,bksd->bkgqs", packed, keys).float() * terms.scale
    if terms.softcap is not None:
        scores = torch.tanh(scores / terms.softcap) * terms.softcap
    scores = scores.masked_fill(~visible, float("-inf"))
    if terms.sinks is not None:
        sinks = terms.sinks.float().view(1, keys.shape[1], -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = scores.softmax(-1)[..., : keys.shape[2]].to(values.dtype)
    return torch.einsum("bkgqs,bksd->bkgqd", weights, values).reshape(batch, num_heads, num_queries, head_dim)


@dataclass(frozen=True)
class GroupTables:
    """Where one layer group finds the KV of a batch.

    block_table [B, NB]; key_positions [B, NB * window_size], -1 where a slot is empty; slots [B, m] take the new KV.
    """

    block_table: Tensor
    key_positions: Tensor
    slots: Tensor


class LeadersHeard(Exception):
    """Thrown through the module when the last leader has scored: what follows would not be used."""


class BlockView:
    """A batch of sequences over their block tables, m new tokens each.

    on_queries, when given, sees the queries of every layer before it attends; it may end the pass by LeadersHeard.
    """

    def __init__(
        self,
        layout: KVLayout,
        arenas: Arenas,
        tables: Mapping[int, GroupTables],
        query_positions: Tensor,  # [B, m]
        on_queries: Callable[[int, Tensor, Terms], None] | None = None,
    ) -> None:
        self._layout = layout
        self._arenas = arenas
        self._tables = tables
        self._query_positions = query_positions
        self._on_queries = on_queries

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, terms: Terms) -> Tensor:
        if self._on_queries is not None:
            self._on_queries(layer, queries, terms)
        group_index, place = self._layout.places[layer]
        tables = self._tables[group_index]
        blocks = self._arenas.of(self._layout.groups[group_index])
        if self._layout.owners[layer] == layer:
            kernels.append_kv(blocks, place, keys.transpose(1, 2), values.transpose(1, 2), tables.slots)
        return kernels.decode_attention(
            queries,
            blocks,
            place,
            tables.block_table,
            tables.key_positions,
            self._query_positions,
            scale=terms.scale,
            sliding_window=terms.sliding_window,
            softcap=terms.softcap,
            sinks=terms.sinks,
        )
