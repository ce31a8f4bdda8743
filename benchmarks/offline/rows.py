"""A batch of rows over one cached document: the same new tokens or others, each row reading a choice of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from offline.choice import Choice
from offline.document import StagedPrompt
from offline.reading import Reading, gather
from windowkv_service.model.attention import LeadersHeard
from windowkv_service.model.prompt_attention import Terms

OnQueries = Callable[[int, Tensor], None]


class Rows:
    """The model's KV view. Every row has a tail of its own: what was run with `keep`."""

    def __init__(self, document: StagedPrompt, num_rows: int) -> None:
        self._document = document
        self._layout = document.layout
        self._module = document.model.module
        self._num_rows = num_rows
        self._readings: dict[int, Reading] = {}
        self._tails: dict[int, tuple[Tensor, Tensor]] = {}
        self._joined: dict[int, tuple[Tensor, Tensor]] = {}
        self._length = 0  # of the tails
        self._on_queries: OnQueries = lambda layer, queries: None

    def read(self, choices: Sequence[Choice]) -> None:
        """From now on, one choice per row. May be called from on_queries, for the layer that asks and those above."""
        for group in self._layout.groups:
            self._readings |= gather(self._document, group, choices)

    @torch.inference_mode()
    def run(self, token_ids: Tensor, on_queries: OnQueries) -> Tensor:
        """token_ids [R, m] behind the tails, which keep them; → logits [R, vocab_size] of each row's last token."""
        self._on_queries = on_queries
        output = self._module(**self._inputs(token_ids), logits_to_keep=1)
        self._tails |= self._joined
        self._length += token_ids.shape[1]
        logits: Tensor = output.logits[:, -1]
        return logits

    @torch.inference_mode()
    def listen(self, token_ids: Tensor, on_queries: OnQueries) -> None:
        """Run them only to hear their queries; on_queries may end the pass by LeadersHeard."""
        self._on_queries = on_queries
        try:
            self._module.get_decoder()(**self._inputs(token_ids))  # type: ignore[operator]
        except LeadersHeard:
            return

    def _inputs(self, token_ids: Tensor) -> dict[str, object]:
        start = self._document.num_tokens + self._length
        positions = torch.arange(start, start + token_ids.shape[1], device=token_ids.device)
        positions = positions.expand(self._num_rows, -1)
        return {"input_ids": token_ids, "position_ids": positions, "use_cache": False, "kv_view": self}

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, terms: Terms) -> Tensor:
        self._on_queries(layer, queries)
        owner = self._layout.owners[layer]
        if owner == layer:
            tail = self._tails.get(layer)
            self._joined[layer] = (
                (keys, values)
                if tail is None
                else (torch.cat([tail[0], keys], 2), torch.cat([tail[1], values], 2))
            )
        reading, (tail_keys, tail_values) = self._readings[owner], self._joined[owner]
        bias = self._bias(reading, queries.shape[2], tail_keys.shape[2], terms.sliding_window)
        all_keys = torch.cat([reading.keys, tail_keys], 2)
        all_values = torch.cat([reading.values, tail_values], 2)
        return biased_attention(queries, all_keys, all_values, bias, terms)

    def _bias(self, reading: Reading, num_queries: int, num_tail: int, sliding: int | None) -> Tensor:
        """[R, Hkv, m, S + num_tail]: the document lies before every query, the tail is causal."""
        start = self._document.num_tokens
        of_queries = torch.arange(start + num_tail - num_queries, start + num_tail)[:, None]  # [m, 1]
        of_tail = torch.arange(start, start + num_tail)
        tail = torch.zeros(num_queries, num_tail).masked_fill(of_tail > of_queries, float("-inf"))
        prefix = reading.bias[:, :, None].expand(-1, -1, num_queries, -1)
        if sliding is not None:
            is_past = reading.positions[:, :, None] <= of_queries - sliding
            prefix = prefix.masked_fill(is_past, float("-inf"))
            tail = tail.masked_fill(of_tail <= of_queries - sliding, float("-inf"))
        return torch.cat([prefix, tail.expand(*prefix.shape[:2], -1, -1)], dim=3)


def biased_attention(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, terms: Terms) -> Tensor:
    """queries [R, H, m, D] over keys and values [R, Hkv, S, D], bias [R, Hkv, m, S] → [R, H, m, D]; in fp32."""
    num_rows, num_heads, num_queries, head_dim = queries.shape
    num_kv_heads = keys.shape[1]
    packed = queries.reshape(num_rows, num_kv_heads, -1, head_dim)  # a KV head's query heads side by side
    scores = (packed @ keys.transpose(2, 3)).float() * terms.scale
    if terms.softcap is not None:
        scores = torch.tanh(scores / terms.softcap) * terms.softcap
    scores = scores.view(num_rows, num_kv_heads, -1, num_queries, keys.shape[2]) + bias[:, :, None]
    if terms.sinks is not None:
        sinks = terms.sinks.float().view(1, num_kv_heads, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = scores.softmax(-1)[..., : keys.shape[2]].to(values.dtype)
    return (weights.flatten(2, 3) @ values).view(num_rows, num_heads, num_queries, head_dim)
