"""Expected Attention (arXiv 2510.00636): what future queries will look at, were they drawn as the prompt's were.

Code consulted: kvpress, expected_attention_press.py (Apache-2.0).

Per query head, mean μ and covariance Σ of the prompt's queries before RoPE, without the first four; both are turned by
the mean rotation of the next 512 positions. A key is then expected to draw exp(μᵀk · s + kᵀΣk · s² / 2), s the scale of
the softmax; normalised over the tokens, averaged over the query heads of a KV head, plus ε, times the norm of the
token's value. The heads of a layer contend for one budget (AdaKV), as in the paper's main results.

What we do differently:
- Queries come after RoPE and are turned back. Where RoPE scales as well as turns (YaRN), the scale is divided out once.
- A layer's own scale stands for 1/√d; a soft cap on scores is not modelled, as in the paper.
- Where positions turn queries in a way that Observation.rotary does not describe, queries are taken as they are.
- ε is the paper's 0.02, of which it uses 0 for needles; kvpress: 0. In a prompt of more than 1 / ε tokens, ε outweighs
  what is expected of most of them, and the values' norms decide.

What it cannot do: a question is unlike the mean of a document's queries, so its answer is not expected to be looked at,
be the question in the prompt or not, and the question's own tokens go too. With these kept, and future queries drawn
like the last 32 (observation_size), it finds the answer (benchmarks/results/visible.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from windowkv_service.selection.attention import per_kv_head
from windowkv_service.selection.base import ALL_QUERIES, Observation
from windowkv_service.selection.token_scorer import Protected, protect
from windowkv_service.selection.token_selector import TokenSelector


@dataclass(frozen=True)
class ExpectedAttention:
    """observation_size: so many last queries say what future ones are like; the paper's prefill takes all of them.
    num_sinks: the first tokens, whose queries are unlike the others'; they stay and are not scored."""

    observation_size: int = ALL_QUERIES
    num_future: int = 512
    num_sinks: int = 4
    epsilon: float = 0.02

    def score(self, observation: Observation, layers: Sequence[int]) -> Mapping[int, Tensor]:
        return {layer: self._score(observation, layer) for layer in layers}

    def protected(self, num_tokens: int, count: int) -> Protected:
        return protect(num_tokens, count, first=self.num_sinks)

    def _score(self, observation: Observation, layer: int) -> Tensor:
        keys = observation.keys(layer)[self.num_sinks :].float()
        if not keys.shape[0]:
            return torch.zeros(keys.shape[1], observation.num_tokens, device=keys.device)
        queries = self._observed_queries(observation, layer)
        turn = self._mean_rotation(observation, queries)
        scale, group = observation.scales[layer], queries.shape[0] // keys.shape[1]
        logits = torch.stack(
            [
                _expected_logits(head, keys[:, number // group], turn, scale)
                for number, head in enumerate(queries)
            ]
        )
        expected = per_kv_head(logits.softmax(dim=-1), keys.shape[1])
        norms = observation.values(layer)[self.num_sinks :].float().norm(dim=-1).t()
        return pad((expected + self.epsilon) * norms, (self.num_sinks, 0))

    def _observed_queries(self, observation: Observation, layer: int) -> Tensor:
        """fp32 [num_heads, m, head_dim], before RoPE."""
        queries = observation.queries[layer][:, -self.observation_size :]
        start = observation.num_tokens - queries.shape[1]
        return _before_rotation(observation, queries, start)[:, max(0, self.num_sinks - start) :]

    def _mean_rotation(self, observation: Observation, queries: Tensor) -> Tensor:
        """[head_dim, head_dim]; turns column vectors."""
        identity = torch.eye(queries.shape[-1], device=queries.device)
        if observation.rotary is None:
            return identity
        start = observation.num_tokens
        cos, sin = observation.rotary(torch.arange(start, start + self.num_future, device=queries.device))
        return _rotate(identity, cos.float().mean(dim=0), sin.float().mean(dim=0)).t()


def _expected_logits(queries: Tensor, keys: Tensor, turn: Tensor, scale: float) -> Tensor:
    """One head: queries [m, head_dim] before RoPE, keys [n, head_dim] → [n]."""
    mean = queries.mean(dim=0)
    centred = (queries - mean) @ turn.t()
    covariance = centred.t() @ centred / queries.shape[0]
    return keys @ (turn @ mean) * scale + ((keys @ covariance) * keys).sum(dim=-1) * scale**2 / 2


def _before_rotation(observation: Observation, queries: Tensor, start: int) -> Tensor:
    """queries [num_heads, m, head_dim] of the tokens from start on; the same in fp32, turned back."""
    if observation.rotary is None:
        return queries.float()
    positions = torch.arange(start, start + queries.shape[1], device=queries.device)
    cos, sin = observation.rotary(positions)
    cos, sin = cos.float(), sin.float()
    growth = (cos**2 + sin**2).mean(dim=-1, keepdim=True)  # 1 but for RoPE that scales too
    return _rotate(queries.float(), cos / growth, -sin / growth)


def _rotate(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE in its half-split form on the first numbers of vectors, as many as cos has; the others pass."""
    turned, passed = vectors[..., : cos.shape[-1]], vectors[..., cos.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    return torch.cat([turned * cos + torch.cat([-second, first], dim=-1) * sin, passed], dim=-1)


def expected_attention() -> TokenSelector:
    return TokenSelector("expected-attention", ExpectedAttention(), adaptive="heads")
