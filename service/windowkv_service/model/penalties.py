"""What a request's own words do to the logits of its next one: penalties, and no end before min_tokens.

Counts live on the device and take in each token as it is drawn: nothing waits for the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from windowkv_service.kv.sending import on_device

LARGEST = torch.finfo(torch.float32).max  # an absurd penalty must not make NaN of the softmax


class Penalties:
    """Of the rows of a batch that have any. prompts and answers: each row's token ids, the prompt's each once. factors:
    each row's repetition, presence and frequency penalty."""

    def __init__(
        self,
        rows: Sequence[int],
        prompts: Iterable[Tensor],
        answers: Iterable[Sequence[int]],
        factors: Sequence[tuple[float, float, float]],
        vocab_size: int,
        device: torch.device,
    ) -> None:
        self._rows = on_device(rows, device)
        self._in_prompt = torch.stack([_mark(on_device(ids, device), vocab_size) for ids in prompts])
        self._counts = torch.stack([_count(on_device(ids, device), vocab_size) for ids in answers])
        columns = on_device(factors, device, torch.float32)
        self._repetition, self._presence, self._frequency = columns.T[:, :, None].unbind()

    def apply(self, logits: Tensor) -> Tensor:
        """logits [B, vocab_size] float32, left as they are → penalized. Repetition counts prompt and answer alike
        (CTRL, arXiv 1909.05858, section 4.1), presence and frequency the answer alone, as in vLLM."""
        raw = logits[self._rows]
        scaled = torch.where(raw > 0, raw / self._repetition, raw * self._repetition).clamp(-LARGEST, LARGEST)
        said = self._counts > 0
        penalized = torch.where(self._in_prompt | said, scaled, raw)
        penalized = penalized - self._frequency * self._counts - self._presence * said
        return logits.index_copy(0, self._rows, penalized)

    def count(self, token_ids: Tensor) -> None:
        """token_ids [B], the batch's new tokens."""
        mine = token_ids[self._rows, None]
        self._counts.scatter_add_(1, mine, torch.ones_like(mine, dtype=torch.int32))


class LateEnds:
    """Rows whose answers may not end yet, what would end them, and the step from which it may."""

    def __init__(
        self,
        rows: Sequence[int],
        ends: Iterable[Iterable[int]],
        first_steps: Sequence[int],
        vocab_size: int,
        device: torch.device,
    ) -> None:
        self._rows = on_device(rows, device)
        self._first_steps = on_device(first_steps, device)[:, None]
        marks = [_mark(on_device(list(ids), device), vocab_size) for ids in ends]
        self._ends = torch.stack([mark & ~mark.all() for mark in marks])  # something must stay sayable

    def apply(self, logits: Tensor, steps: Tensor) -> Tensor:
        """logits [B, vocab_size], left as they are; steps [B]: tokens that each row has drawn."""
        is_early = steps[self._rows, None] < self._first_steps
        allowed = logits[self._rows].masked_fill(self._ends & is_early, float("-inf"))
        return logits.index_copy(0, self._rows, allowed)


def _count(token_ids: Tensor, vocab_size: int) -> Tensor:
    """[vocab_size] int32: how often each token is among token_ids."""
    counts = torch.zeros(vocab_size, dtype=torch.int32, device=token_ids.device)
    return counts.index_add_(0, token_ids, torch.ones_like(token_ids, dtype=torch.int32))


def _mark(token_ids: Tensor, vocab_size: int) -> Tensor:
    """[vocab_size] bool: which tokens are among token_ids."""
    marked = torch.zeros(vocab_size, dtype=torch.bool, device=token_ids.device)
    return marked.index_fill_(0, token_ids, True)
