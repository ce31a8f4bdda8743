"""Which task a prompt poses, told from its attention.

WindowKV asks a BERT classifier, which is not published. This is a first version of something cheaper, to be
judged by the quality suite: a prompt that asks for one place attends to few windows, one that asks to gather
attends to many.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from windowkv_service.domain.requests import Task

PEAKED_SHARE = 0.35  # of the windows; a first guess, measured on nothing but the built-in model
FEWEST_WINDOWS = 8  # with fewer, peaked and flat mean nothing


def effective_share(score: Tensor) -> float:
    """How many windows share the attention, as a share of all: exp(entropy) / number, in (0, 1].

    score: [num_windows] of the mean statistic. Window 0 is left out: it holds the attention sink anyway.
    """
    review = score[1:][torch.isfinite(score[1:])]
    if review.numel() < FEWEST_WINDOWS or float(review.sum()) <= 0:
        return 0.0
    shares = review / review.sum()
    entropy = -(shares * shares.clamp(min=torch.finfo(shares.dtype).tiny).log()).sum()
    return float(entropy.exp()) / review.numel()


def decide_task(scores: Sequence[Tensor]) -> Task:
    """LOCALIZATION if some leader's attention is peaked, else AGGREGATION. scores: per leader, mean."""
    most_peaked = min((effective_share(score) for score in scores), default=0.0)
    return Task.LOCALIZATION if most_peaked <= PEAKED_SHARE else Task.AGGREGATION
