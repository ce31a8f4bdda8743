"""The attention function that Hugging Face modules call, and the views it finds its KV through.

A view is given to each model call as `kv_view=…` (transformers passes extra arguments on to the attention function,
AttentionInterface). It knows where the KV of the sequences in this call lives; the module knows nothing of it.
Without a mask function of the same name transformers makes no mask: visibility is the view's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

import windowkv_kernels as kernels
from windowkv_service.kv.buffers import Arenas, Staging
from windowkv_service.kv.layout import KVLayout
from windowkv_service.model.prompt_attention import Terms, prompt_attention, visible_keys

ATTENTION_NAME = "windowkv"


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

    by_layer: layer → [num_heads, at most num_tokens, head_dim]. lse: layer → [num_heads, as many] fp32, the log-sum-exp
    of each query's logits over the tokens it sees, for layers whose attention tells.
    """

    def __init__(self, layers: Iterable[int], num_tokens: int) -> None:
        self.layers = frozenset(layers)
        self.num_tokens = num_tokens
        self.by_layer: dict[int, Tensor] = {}
        self.lse: dict[int, Tensor] = {}

    def see(self, layer: int, queries: Tensor, lse: Tensor | None = None) -> None:
        """queries [num_heads, m, head_dim] of m tokens more; lse [num_heads, m]."""
        if layer not in self.layers or self.num_tokens == 0:
            return
        is_first = layer not in self.by_layer
        if lse is not None and (is_first or layer in self.lse):
            self.lse[layer] = self._last(self.lse.get(layer), lse)
        else:
            self.lse.pop(layer, None)  # of some of the queries nobody knows it
        self.by_layer[layer] = self._last(self.by_layer.get(layer), queries)

    def _last(self, seen: Tensor | None, new: Tensor) -> Tensor:
        joined = new if seen is None else torch.cat([seen, new], dim=1)
        return joined[:, -self.num_tokens :].clone()


class PrefillView:
    """One prompt, tokens start … start + m of it: KV goes to staging, queries see all of staging up to themselves."""

    def __init__(self, layout: KVLayout, staging: Staging, start: int, observed: Observed) -> None:
        self._layout = layout
        self._staging = staging
        self._start = start
        self._observed = observed
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, terms: Terms) -> Tensor:
        seen_keys, seen_values = self._seen(layer, keys[0].transpose(0, 1), values[0].transpose(0, 1))
        sliding_window = terms.sliding_window
        if sliding_window is not None:  # what no query sees is not looked at
            first = max(0, seen_keys.shape[0] - queries.shape[2] - sliding_window + 1)
            seen_keys, seen_values = seen_keys[first:], seen_values[first:]
        output, lse = prompt_attention(
            queries,
            seen_keys.transpose(0, 1).unsqueeze(0),
            seen_values.transpose(0, 1).unsqueeze(0),
            terms,
            lambda: self._mask(queries.shape[2], seen_keys.shape[0], sliding_window, queries.device),
        )
        self._observed.see(layer, queries[0], None if lse is None else lse[0])
        return output

    def _seen(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values up to the new ones, [end, Hkv, D], which are kept where the layer owns them."""
        if self._layout.owners[layer] == layer:
            self._staging.write(layer, self._start, keys, values)
        end = self._start + keys.shape[0]
        return self._staging.keys(layer, end), self._staging.values(layer, end)

    def _mask(
        self, num_queries: int, num_keys: int, sliding_window: int | None, device: torch.device
    ) -> Tensor:
        """Of the last positions; the same for all layers of a kind."""
        if sliding_window not in self._masks:
            self._masks[sliding_window] = visible_keys(num_queries, num_keys, sliding_window, device)
        return self._masks[sliding_window]


class RepeatView(PrefillView):
    """Tokens that are run behind a staged prompt, at positions start …, of which nothing is kept."""

    def __init__(self, layout: KVLayout, staging: Staging, start: int, observed: Observed) -> None:
        super().__init__(layout, staging, start, observed)
        self._new: dict[int, tuple[Tensor, Tensor]] = {}  # by the layer that owns them

    def new_keys(self, layer: int) -> Tensor:
        """Theirs, [m, Hkv, D]."""
        return self._new[self._layout.owners[layer]][0]

    def _seen(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        owner = self._layout.owners[layer]
        if owner == layer:
            self._new[owner] = keys, values
        new_keys, new_values = self._new[owner]
        return (
            torch.cat([self._staging.keys(owner, self._start), new_keys]),
            torch.cat([self._staging.values(owner, self._start), new_values]),
        )


@dataclass(frozen=True)
class SharedTable:
    """What all sequences of a batch read alike: block_table [NS], key_positions [NS * window_size], num_filled [1]."""

    block_table: Tensor
    key_positions: Tensor
    num_filled: Tensor


@dataclass(frozen=True)
class LayerTables:
    """Where a layer finds the KV of a batch of B sequences.

    block_table [R, NB]; key_positions [R, NB * window_size], -1 where a slot is empty; slots [R, m] take the new KV,
    except where they are -1. num_filled [R]: nothing is visible from that slot on; None: the tables are no wider.
    R = B where the layer's KV heads share the blocks of its group. Where each has strips of its own, R = B *
    num_kv_heads: a sequence's heads are rows of their own, one after the other.
    shared: blocks that come before every table and are read once for all of them.
    """

    block_table: Tensor
    key_positions: Tensor
    slots: Tensor
    is_split: bool = False
    num_filled: Tensor | None = None
    shared: SharedTable | None = None


class LeadersHeard(Exception):
    """Thrown through the module when the last leader has scored: what follows would not be used."""


class BlockView:
    """A batch of sequences over their block tables, by layer that owns its KV, m new tokens each.

    on_queries, when given, sees the queries of every layer before it attends; it may end the pass by LeadersHeard.
    """

    def __init__(
        self,
        layout: KVLayout,
        arenas: Arenas,
        tables: Mapping[int, LayerTables],
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
        owner = self._layout.owners[layer]
        tables = self._tables[owner]
        blocks, place, split = self._memory(owner, is_split=tables.is_split)
        assert terms.sinks is None or split == 1, "no model that is served has sinks of each head's own"
        if owner == layer:
            new_keys, new_values = _rows(keys, split).transpose(1, 2), _rows(values, split).transpose(1, 2)
            kernels.append_kv(blocks, place, new_keys, new_values, tables.slots)
        attended = self._attended(_rows(queries, split), blocks, place, tables, split, terms)
        return attended.reshape(queries.shape)

    def _attended(
        self, queries: Tensor, blocks: Tensor, place: int, tables: LayerTables, split: int, terms: Terms
    ) -> Tensor:
        positions, shared = repeat_rows(self._query_positions, split), tables.shared
        options: dict[str, Any] = {
            "num_filled": tables.num_filled,
            "scale": terms.scale,
            "sliding_window": terms.sliding_window,
            "softcap": terms.softcap,
            "sinks": terms.sinks,
        }
        own = (tables.block_table, tables.key_positions, positions)
        if shared is None:
            return kernels.decode_attention(queries, blocks, place, *own, **options)
        common = (shared.block_table, shared.key_positions)
        return kernels.shared_prefix_decode(
            queries, blocks, place, *common, *own, num_shared=shared.num_filled, **options
        )

    def _memory(self, owner: int, *, is_split: bool) -> tuple[Tensor, int, int]:
        """The layer's blocks, its place in them, and into how many rows a sequence's heads are split."""
        index, place = self._layout.places[owner]
        group = self._layout.groups[index]
        if is_split:
            return self._arenas.strips_of(group), 0, self._layout.num_kv_heads
        return self._arenas.of(group), place, 1


def repeat_rows(rows: Tensor, split: int) -> Tensor:
    """[B, …] → [B * split, …], each row so many times; a view where that is once."""
    return rows[:, None].expand(-1, split, *rows.shape[1:]).flatten(0, 1)


def _rows(heads: Tensor, split: int) -> Tensor:
    """[B, H, m, D] → [B * split, H / split, m, D]."""
    return heads.reshape(heads.shape[0] * split, -1, *heads.shape[2:])
