"""Before the first caller comes: what a GPU compiles, captures and allocates on first use is used once.

A cache is created, asked in the ways that run kernels of their own, and deleted again, all by the engine's own door.
Kernels are compiled once for all sizes (tests/kernels/test_compiled_once.py), so that one of each kind is enough.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from windowkv_service.domain.requests import (
    Compression,
    CreateRequest,
    GenerateRequest,
    QuestionSelection,
    Sampling,
    Task,
)
from windowkv_service.domain.results import CacheInfo, CreateOutcome
from windowkv_service.engine.engine import Engine
from windowkv_service.errors import WindowKVError
from windowkv_service.telemetry import get_logger

TENANT = "windowkv/warm-up"  # nobody's name: what it leaves for a moment is found by no caller
NUM_WINDOWS = 40  # more than the blocks that a batch must share to read them once
QUESTIONS = (4, 70)  # tokens: few rows of a key head, and more than one tile of them
TTL_S = 600.0
SPOKEN = Sampling(max_tokens=3, ignore_eos=True)
CHANCE = Sampling(max_tokens=3, ignore_eos=True, temperature=1.0, seed=0, top_k=50, top_p=0.9, min_p=0.01)

log = get_logger(__name__)


async def warm_up(engine: Engine) -> None:
    """Seconds on a GPU that has never run these kernels, else less. That something does not work is told, and left to
    the requests that need it."""
    started = time.monotonic()
    try:
        await _use_everything(engine)
    except WindowKVError as error:
        log.warning("warm_up_failed", reason=str(error))
        return
    log.info("warmed_up", duration_s=round(time.monotonic() - started, 3))


async def _use_everything(engine: Engine) -> None:
    size = min(NUM_WINDOWS * engine.model.window_size, engine.model.max_tokens // 2)
    created: list[CacheInfo] = []
    try:
        for task in (
            Task.LOCALIZATION,
            Task.AGGREGATION,
        ):  # the second finds the first's windows and brings them back
            created.append(await _create(engine, _tokens(engine, size), task))
        name = created[0].name
        for length in QUESTIONS:
            await _ask(engine, name, _tokens(engine, min(length, size)), QuestionSelection.AUTO, SPOKEN)
        question = _tokens(engine, 4)
        together = (_ask(engine, name, question, QuestionSelection.FULL, how) for how in (SPOKEN, CHANCE))
        await asyncio.gather(*together)
    finally:
        for cache in created:
            await engine.delete_cache(TENANT, cache.name)


def _tokens(engine: Engine, count: int) -> tuple[int, ...]:
    return tuple(number % engine.model.vocab_size for number in range(count))


async def _create(engine: Engine, token_ids: Sequence[int], task: Task) -> CacheInfo:
    compression = Compression(kept_ratio=0.5, task=task)
    request = CreateRequest("warm-up", TENANT, tuple(token_ids), compression, ttl_s=TTL_S)
    outcomes = [event async for event in engine.create_cache(request) if isinstance(event, CreateOutcome)]
    return outcomes[-1].cache


async def _ask(
    engine: Engine, name: str, token_ids: Sequence[int], selection: QuestionSelection, sampling: Sampling
) -> None:
    request = GenerateRequest("warm-up", TENANT, tuple(token_ids), name, sampling, selection)
    async for _ in engine.generate(request):
        pass
