"""Rows of a batch that draw by chance: temperature, min-p, top-k, then top-p of what these leave, as in vLLM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from windowkv_service.domain.requests import Sampling
from windowkv_service.kv.sending import on_device
from windowkv_service.model.chance import gumbel, step_keys

GREEDY_BELOW = 1e-5  # a temperature this low divides logits beyond what floats can tell apart


def is_greedy(sampling: Sampling) -> bool:
    return sampling.temperature < GREEDY_BELOW


class Draws:
    """rows: of the batch; samplings and seeds: theirs. Only rows with top-k or top-p pay for ranking the vocabulary."""

    def __init__(
        self, rows: Sequence[int], samplings: Sequence[Sampling], seeds: Sequence[int], device: torch.device
    ) -> None:
        self._rows = on_device(rows, device)
        self._seeds = on_device(seeds, device)
        self._temperature = _column([sampling.temperature for sampling in samplings], device)
        self._min_p = _column([sampling.min_p for sampling in samplings], device)
        ranked = [
            number for number, sampling in enumerate(samplings) if sampling.top_k or sampling.top_p < 1.0
        ]
        self._ranked = on_device(ranked, device) if ranked else None
        most = torch.iinfo(torch.long).max
        self._top_k = on_device([samplings[number].top_k or most for number in ranked], device)[:, None]
        self._top_p = _column([samplings[number].top_p for number in ranked], device)

    def draw_into(self, token_ids: Tensor, logits: Tensor, steps: Tensor) -> Tensor:
        """token_ids [B] with these rows drawn from logits [B, vocab_size]. steps [B]: tokens drawn before.

        In float64: sums over large vocabularies then differ between devices by less than any probability.
        """
        scaled = logits[self._rows].double()
        scaled = (scaled - scaled.amax(-1, keepdim=True)) / self._temperature
        weights = scaled.exp()  # the likeliest has 1
        keep = weights >= self._min_p
        if self._ranked is not None:
            ranked = self._ranked
            keep = keep.index_copy(0, ranked, self._rank(scaled[ranked], weights[ranked], keep[ranked]))
        noise = gumbel(step_keys(self._seeds, steps[self._rows]), logits.shape[-1])
        drawn = (scaled + noise).masked_fill(~keep, float("-inf")).argmax(-1)
        return token_ids.index_copy(0, self._rows, drawn)

    def _rank(self, scaled: Tensor, weights: Tensor, keep: Tensor) -> Tensor:
        """What top-k and top-p leave of keep; of equals the smaller token id ranks first."""
        order = scaled.sort(stable=True, dim=-1, descending=True).indices
        is_kept = torch.arange(order.shape[-1], device=order.device)[None, :] < self._top_k
        shares = (weights * keep).gather(-1, order) * is_kept
        before = shares.cumsum(-1) - shares
        is_kept &= (before < self._top_p * shares.sum(-1, keepdim=True)) | (self._top_p >= 1.0)
        return keep & torch.empty_like(keep).scatter_(-1, order, is_kept)


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    return on_device(values, device, torch.float64)[:, None]
