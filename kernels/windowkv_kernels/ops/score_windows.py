"""Attention of a prompt's last tokens → window scores."""

from __future__ import annotations

from torch import Tensor

from windowkv_kernels.formats import WindowScores
from windowkv_kernels.ops._launch import run_all
from windowkv_kernels.ops._parts import part_of
from windowkv_kernels.ops._score_plan import Question, plan


def score_windows(
    queries: Tensor,
    keys: Tensor,
    lse: Tensor | None,
    window_size: int,
    scale: float,
    top_p: int | None,
    softcap: float | None,
) -> WindowScores:
    num_review = keys.shape[0] - queries.shape[1]
    question = Question(window_size, scale, top_p, softcap, is_causal=True, num_review=num_review)
    launches, scores = plan(queries, keys, question, part_of(keys.device), lse)
    run_all(launches)
    return scores
