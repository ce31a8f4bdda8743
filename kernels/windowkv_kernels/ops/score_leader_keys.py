"""Attention of a question's tokens → scores of the document's windows; quantized keys are unpacked in registers."""

from __future__ import annotations

from torch import Tensor

from windowkv_kernels.formats import QuantizedKeys, WindowScores
from windowkv_kernels.ops._launch import run_all
from windowkv_kernels.ops._parts import part_of
from windowkv_kernels.ops._score_plan import Question, plan


def score_leader_keys(
    queries: Tensor,
    keys: Tensor | QuantizedKeys,
    window_size: int,
    scale: float,
    top_p: int | None,
    softcap: float | None,
) -> WindowScores:
    num_tokens = keys.num_tokens if isinstance(keys, QuantizedKeys) else keys.shape[0]
    question = Question(window_size, scale, top_p, softcap, is_causal=False, num_review=num_tokens)
    launches, scores = plan(queries, keys, question, part_of(queries.device))
    run_all(launches)
    return scores
