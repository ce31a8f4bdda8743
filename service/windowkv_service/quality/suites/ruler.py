"""ruler: RULER's thirteen tasks (Hsieh et al. 2024, arXiv:2404.06654) in the built-in model's words and at its lengths.

The score is the share of the expected parts that are found in an answer, in any order. `ruler_files.py` is for the
published files.
"""

from __future__ import annotations

from windowkv_service.model.builtin.documents.ruler import tasks
from windowkv_service.quality.metrics import parts
from windowkv_service.quality.suites.base import Suite
from windowkv_service.quality.suites.generated import Generated

LENGTHS = (1000, 2000, 4000)
NUM_QUESTIONS = 3  # at most: cwe and fwe have one question to ask
MAX_TOKENS = 24  # the longest answer, four keys with their values, has 15


def ruler() -> Suite:
    return Suite(
        "ruler",
        tuple(
            Generated(f"ruler/{name}/{num_tokens}", make(num_tokens, NUM_QUESTIONS), parts, MAX_TOKENS)
            for name, make in tasks().items()
            for num_tokens in LENGTHS
        ),
    )
