"""Logits and sampling parameters → token ids.

Each sequence draws from its own generator, so what it samples does not depend on who shares its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from windowkv_service.domain.requests import Sampling
from windowkv_service.domain.results import TokenLogprob

GREEDY_BELOW = 1e-5  # a temperature this low divides logits beyond what floats can tell apart


@dataclass
class SamplerState:
    """One sequence's chance and memory. prompt_ids count for the repetition penalty, as in vLLM."""

    sampling: Sampling
    generator: torch.Generator
    prompt_ids: Sequence[int]
    eos_ids: frozenset[int]
    generated_ids: list[int] = field(default_factory=list)

    @classmethod
    def make(
        cls, sampling: Sampling, prompt_ids: Sequence[int], eos_ids: frozenset[int], *, fresh_seed: int
    ) -> SamplerState:
        """fresh_seed is used when the request names none."""
        generator = torch.Generator()
        generator.manual_seed(fresh_seed if sampling.seed is None else sampling.seed)
        return cls(sampling, generator, prompt_ids, eos_ids)


@dataclass(frozen=True)
class Sampled:
    token_id: int
    logprob: TokenLogprob | None


def sample(logits: Tensor, states: Sequence[SamplerState]) -> list[Sampled]:
    """logits [B, vocab_size], one row per state. Greedy rows without extras share one argmax."""
    if all(_is_plain_greedy(state) for state in states):
        return [Sampled(token_id, None) for token_id in logits.argmax(-1).tolist()]
    return [_sample_row(row, state) for row, state in zip(logits.float().cpu(), states, strict=True)]


def _is_greedy(sampling: Sampling) -> bool:
    return sampling.temperature < GREEDY_BELOW


def _is_plain_greedy(state: SamplerState) -> bool:
    sampling = state.sampling
    is_unbiased = (
        sampling.repetition_penalty == 1.0
        and not sampling.presence_penalty
        and not sampling.frequency_penalty
    )
    may_end = len(state.generated_ids) >= sampling.min_tokens
    return _is_greedy(sampling) and is_unbiased and may_end and sampling.logprobs is None


def _sample_row(logits: Tensor, state: SamplerState) -> Sampled:
    """logits [vocab_size] float32."""
    sampling = state.sampling
    log_probabilities = logits.log_softmax(-1) if sampling.logprobs is not None else None
    logits = _forbid_early_end(_penalize(logits, state), state)
    token_id = int(logits.argmax()) if _is_greedy(sampling) else _draw(logits, state)
    if log_probabilities is None:
        return Sampled(token_id, None)
    top = log_probabilities.topk(sampling.logprobs or 0)
    pairs = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return Sampled(token_id, TokenLogprob(token_id, float(log_probabilities[token_id]), pairs))


def _penalize(logits: Tensor, state: SamplerState) -> Tensor:
    sampling = state.sampling
    if sampling.repetition_penalty != 1.0:  # CTRL, arXiv 1909.05858, section 4.1: prompt and answer alike
        seen = torch.tensor(sorted({*state.prompt_ids, *state.generated_ids}), dtype=torch.long)
        raw = logits[seen]
        scaled = torch.where(raw > 0, raw / sampling.repetition_penalty, raw * sampling.repetition_penalty)
        largest = torch.finfo(scaled.dtype).max  # an absurd penalty must not make NaN of the softmax
        logits = logits.index_copy(0, seen, scaled.clamp(-largest, largest))
    if (sampling.presence_penalty or sampling.frequency_penalty) and state.generated_ids:
        counts = torch.bincount(torch.tensor(state.generated_ids), minlength=logits.shape[0])
        logits = logits - sampling.frequency_penalty * counts - sampling.presence_penalty * (counts > 0)
    return logits


def _forbid_early_end(logits: Tensor, state: SamplerState) -> Tensor:
    if len(state.generated_ids) >= state.sampling.min_tokens:
        return logits
    ends = set(state.sampling.stop_token_ids) | (frozenset() if state.sampling.ignore_eos else state.eos_ids)
    if len(ends) >= logits.shape[0]:
        return logits  # nothing else is left to say
    return logits.index_fill(0, torch.tensor(sorted(ends), dtype=torch.long), float("-inf"))


def _draw(logits: Tensor, state: SamplerState) -> int:
    """Temperature, min-p, top-k, then top-p of what these leave, as in vLLM; then one draw by inverse CDF."""
    sampling = state.sampling
    logits = logits.double()
    scaled = (logits - logits.max()) / sampling.temperature
    probabilities, order = scaled.softmax(-1).sort(descending=True, stable=True)
    keep = probabilities >= sampling.min_p * probabilities[0]
    if sampling.top_k:
        keep[sampling.top_k :] = False
    kept = probabilities * keep
    if sampling.top_p < 1.0:
        keep &= kept.cumsum(-1) - kept < sampling.top_p * kept.sum()
        kept = kept * keep
    threshold = torch.rand((), generator=state.generator) * kept.sum()
    rank = int(torch.searchsorted(kept.cumsum(-1), threshold, right=True))
    return int(order[min(rank, int(keep.nonzero().max()))])
