"""When an answer counts, and how much: one metric per file, from what was said and what was expected to 0 … 100.

`exact` and `parts` score our own suites, `ruler_all` and `ruler_any` RULER's files as RULER does. LongBench's metrics
compare with one reference at a time, 0 … 1; `Best` takes the best of several references.
"""

from __future__ import annotations

from windowkv_service.quality.metrics.base import Metric, Similarity
from windowkv_service.quality.metrics.best import Best
from windowkv_service.quality.metrics.classification import Classification
from windowkv_service.quality.metrics.code_similarity import code_similarity
from windowkv_service.quality.metrics.exact import exact
from windowkv_service.quality.metrics.numbers import number_share
from windowkv_service.quality.metrics.parts import parts
from windowkv_service.quality.metrics.rouge_l import rouge_l, rouge_l_chinese
from windowkv_service.quality.metrics.ruler_match import ruler_all, ruler_any
from windowkv_service.quality.metrics.token_f1 import token_f1, token_f1_chinese

__all__ = [
    "Best",
    "Classification",
    "Metric",
    "Similarity",
    "code_similarity",
    "exact",
    "number_share",
    "parts",
    "rouge_l",
    "rouge_l_chinese",
    "ruler_all",
    "ruler_any",
    "token_f1",
    "token_f1_chinese",
]
