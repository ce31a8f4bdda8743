"""The KV of a prompt's tokens, computed chunk by chunk."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from windowkv_service.domain.results import PrefillProgress
from windowkv_service.engine.prompt import Prompt
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.task import TURN, Walk
from windowkv_service.kv.buffers import Staging
from windowkv_service.model.attention import Observed

OnProgress = Callable[[PrefillProgress], None]
Meanwhile = Callable[[int], None]


def do_nothing(num_done: int) -> None:
    """Of so many tokens that are staged."""


def compute(
    resources: Resources,
    prompt: Prompt,
    staging: Staging,
    observed: Observed,
    start: int,
    on_progress: OnProgress,
    meanwhile: Meanwhile = do_nothing,
) -> Walk[None]:
    """Fill staging from the token start on, one chunk per turn. meanwhile is told, while a chunk is computed, how many
    tokens were staged before it."""
    size = resources.limits.chunk_tokens
    on_progress(PrefillProgress(start, prompt.num_tokens, start))
    for first in range(start, prompt.num_tokens, size):
        yield TURN
        began = time.perf_counter()
        chunk = prompt.token_ids[first : first + size]
        resources.runner.prefill(chunk, first, staging, observed, partial(meanwhile, first))
        seconds = time.perf_counter() - began
        resources.metrics.steps.stepped("prefill", len(chunk), seconds)
        resources.store.speeds.observe_prefill(len(chunk), seconds)
        on_progress(PrefillProgress(first + len(chunk), prompt.num_tokens, start))
