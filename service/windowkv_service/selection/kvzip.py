"""KVzip (arXiv 2505.23416): what the model looks at when it repeats the prompt is what it needs of it.

Code consulted: snu-mllab/KVzip, attention/score.py (MIT); kvpress, kvzip_press.py (Apache-2.0).

The prompt is run again, chunk by chunk, over its own full cache. A chunk's queries attend to the first tokens, to the
chunk's own cached keys, and to the tokens of the repetition up to themselves; a cached token scores the maximum that it
receives, over queries and the query heads of its KV head, in the softmax over just these. The lists of all layers and
heads contend for one budget, without a floor.

What we do differently:
- A chunk is announced by the last eight tokens before it, without words: the authors' "Repeat the previous context:"
  is a sentence of one language and tokenizer. announce_first, announce_next and announce_last say it where wanted.
- No system prompt is told apart; the first four tokens stay, as in kvpress.
- Every list keeps at least one block, so that no attention is over nothing.
- A question at the prompt's end is repeated and dropped like the rest: KVzip is made for prompts that are asked later.
  Were the last 32 tokens kept, it would answer visible questions too (benchmarks/results/visible.md).
- Lists are really shorter. kvpress keeps them whole and hides what it calls dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from windowkv_service.selection.attention import attention_logits, mask_future, row_chunks
from windowkv_service.selection.base import Observation, Repeated
from windowkv_service.selection.token_scorer import Protected, protect
from windowkv_service.selection.token_selector import TokenSelector


@dataclass(frozen=True)
class KVzip:
    """chunk_tokens: so many prompt tokens are repeated at a time.

    announce_first, announce_next: said before the first and before every further chunk, token ids; behind the latter
    come the num_before last tokens before the chunk, then announce_last before any.
    """

    observation_size: int = 0
    chunk_tokens: int = 2048
    num_sinks: int = 4
    num_before: int = 8
    announce_first: tuple[int, ...] = ()
    announce_next: tuple[int, ...] = ()
    announce_last: tuple[int, ...] = ()

    def score(self, observation: Observation, layers: Sequence[int]) -> Mapping[int, Tensor]:
        layout, num_tokens = observation.layout, observation.num_tokens
        scores = {
            layer: torch.zeros(layout.num_kv_heads, num_tokens, device=observation.keys(layer).device)
            for layer in layers
        }
        for start in range(0, num_tokens, self.chunk_tokens):
            chunk = slice(start, min(start + self.chunk_tokens, num_tokens))
            repeated = observation.repeat(self.repetition(observation.token_ids, chunk))
            for layer in layers:
                scores[layer][:, chunk] = self._received(observation, layer, repeated[layer], chunk)
        return scores

    def protected(self, num_tokens: int, count: int) -> Protected:
        return protect(num_tokens, count, first=self.num_sinks)

    def repetition(self, token_ids: Sequence[int], chunk: slice) -> list[int]:
        """The tokens that are run to repeat token_ids[chunk]."""
        announced = list(self.announce_first)
        if chunk.start > 0:
            announced = [*self.announce_next, *token_ids[max(0, chunk.start - self.num_before) : chunk.start]]
        return [*announced, *self.announce_last, *token_ids[chunk]]

    def _received(self, observation: Observation, layer: int, repeated: Repeated, chunk: slice) -> Tensor:
        """[num_kv_heads, tokens of chunk]: the most that each receives."""
        keys = observation.keys(layer)
        sinks = keys[: min(self.num_sinks, chunk.start)]
        seen = torch.cat([sinks, keys[chunk], repeated.keys]).float()
        num_cached = seen.shape[0] - repeated.keys.shape[0]
        scale, softcap = observation.scales[layer], observation.softcaps.get(layer)
        most = torch.zeros(seen.shape[1], num_cached - sinks.shape[0], device=seen.device)
        for head, queries in enumerate(repeated.queries.chunk(seen.shape[1])):
            for rows in row_chunks(queries.shape[1], queries.shape[0] * seen.shape[0]):
                logits = attention_logits(queries[:, rows], seen[:, head], scale, softcap)
                shares = mask_future(logits, num_cached + rows.start).softmax(dim=-1)
                received = shares[..., sinks.shape[0] : num_cached].amax(dim=(0, 1))
                most[head] = torch.maximum(most[head], received)
        return most


def kvzip() -> TokenSelector:
    return TokenSelector("kvzip", KVzip(), adaptive="model", floor=0.0)
