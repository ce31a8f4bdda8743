"""Which task a prompt poses, told from its attention.

WindowKV asks a BERT classifier, which is not published. This is a first version of something cheaper: a prompt that
asks for one place looks at few windows when it ends, one that asks to gather looks at many. On the built-in model's
single-fact prompts of 2,000 tokens its leader's share was 0.02 to 0.11 with the question at the end and 0.16 to 0.51
without one; no task that gathers has been measured yet, and either statistic answered the single facts alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

from windowkv_service.domain.requests import Task

SIGNAL_TOKENS = 2  # the very last ones: earlier ones look at their own neighbourhood
PEAKED_SHARE = 0.14
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
    """LOCALIZATION if half of the leaders look at few windows, else AGGREGATION.

    scores: per leader, by the mean over the last SIGNAL_TOKENS. First layers look at few windows whatever is asked,
    last ones at many: the middle one decides.
    """
    share = median(map(effective_share, scores)) if scores else 0.0
    return Task.LOCALIZATION if share <= PEAKED_SHARE else Task.AGGREGATION
