"""PREFILL: a prompt's KV cache is computed, or reused from the tiers, and its windows are chosen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.domain.requests import Compression, Retention
from windowkv_service.domain.results import PrefillProgress
from windowkv_service.engine.blocks import Claim, FetchReport, claim_staged
from windowkv_service.engine.budget import block_budget, resident_of
from windowkv_service.engine.index import LeaderIndex, index_addresses
from windowkv_service.engine.prompt import Prompt, Windows
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.reuse import reuse
from windowkv_service.engine.task import TURN, Walk
from windowkv_service.kv.buffers import Staging
from windowkv_service.kv.snapshot import dtype_name, stage_out
from windowkv_service.model.attention import Observed
from windowkv_service.selection.base import Observation, Selector, WindowSelection

OnProgress = Callable[[PrefillProgress], None]


@dataclass(frozen=True)
class Prefilled:
    """A prompt's compressed form, and the frames that its retention sends below. claim: what stays on the device."""

    claim: Claim
    selection: WindowSelection
    index: LeaderIndex | None
    frames: list[Frame]
    num_reused: int
    prefill_s: float
    compress_s: float
    queue_s: float


def prefill(
    resources: Resources,
    prompt: Prompt,
    compression: Compression,
    report: FetchReport,
    on_progress: OnProgress,
    *,
    is_kept_below: bool = True,
) -> Walk[Prefilled]:
    """The whole way from tokens to chosen blocks. Whoever takes the result releases its claim. Frames are made only of
    what is to be kept below."""
    selector = resources.selectors[compression.method]
    observed = Observed(selector.observed_layers(resources.model.layout), selector.observation_size)
    submitted = time.monotonic()
    yield from resources.staging_free()
    with resources.stage(prompt.num_tokens) as staging:
        started = time.monotonic()
        num_reused = yield from reuse(resources, prompt, staging, selector.observation_size, report)
        yield from _compute(resources, prompt, staging, observed, num_reused, on_progress)
        computed = time.monotonic()
        index = _make_index(resources, prompt, compression, staging)
        selection = _choose(resources, prompt, compression, selector, staging, observed, index)
        frames = []
        if is_kept_below:
            frames = _outgoing(resources, prompt, compression, selection.windows, index, staging)
        index_bytes = 0 if index is None else index.size_bytes
        resident = resident_of(resources, prompt, compression, selection.windows, index_bytes)
        claim = yield from claim_staged(resources, prompt, resident, staging)
    ended = time.monotonic()
    return Prefilled(
        claim, selection, index, frames, num_reused, ended - started, ended - computed, started - submitted
    )


def prefill_again(
    resources: Resources, prompt: Prompt, windows: Windows, retained: Windows, report: FetchReport
) -> Walk[tuple[Claim, list[Frame]]]:
    """Blocks were lost or corrupt: compute what cannot be reused. Answers the windows, and the frames of all that is
    retained, to mend what is kept below."""
    yield from resources.staging_free()
    with resources.stage(prompt.num_tokens) as staging:
        yield from _restage_all(resources, prompt, staging, report)
        frames = _block_frames(resources, prompt, retained, staging)
        return (yield from claim_staged(resources, prompt, windows, staging)), frames


def rebuild_index(
    resources: Resources, prompt: Prompt, report: FetchReport
) -> Walk[tuple[LeaderIndex, list[Frame]]]:
    """The leader keys were lost, or are of other leaders than today's: make them from the prompt. Answers them, and
    the frames to keep below."""
    assert resources.profile is not None
    yield from resources.staging_free()
    with resources.stage(prompt.num_tokens) as staging:
        yield from _restage_all(resources, prompt, staging, report)
        index = LeaderIndex.build(resources.profile, staging, prompt.num_tokens)
    return index, index.frames(index_addresses(prompt, resources.profile))


def _restage_all(resources: Resources, prompt: Prompt, staging: Staging, report: FetchReport) -> Walk[None]:
    num_reused = yield from reuse(resources, prompt, staging, 0, report)
    yield from _compute(resources, prompt, staging, Observed((), 0), num_reused, lambda progress: None)


def _compute(
    resources: Resources,
    prompt: Prompt,
    staging: Staging,
    observed: Observed,
    start: int,
    on_progress: OnProgress,
) -> Walk[None]:
    size = resources.limits.chunk_tokens
    on_progress(PrefillProgress(start, prompt.num_tokens, start))
    for first in range(start, prompt.num_tokens, size):
        yield TURN
        began = time.perf_counter()
        chunk = prompt.token_ids[first : first + size]
        resources.runner.prefill(chunk, first, staging, observed)
        seconds = time.perf_counter() - began
        resources.metrics.steps.stepped("prefill", len(chunk), seconds)
        resources.store.speeds.observe_prefill(len(chunk), seconds)
        on_progress(PrefillProgress(first + len(chunk), prompt.num_tokens, start))


def _is_full(prompt: Prompt, compression: Compression) -> bool:
    """Nothing is to be dropped, or nothing can be: sliding layers keep what they see and no more."""
    return (
        compression.kept_ratio >= 1.0 or compression.method == "full" or not prompt.layout.selectable_groups
    )


def _make_index(
    resources: Resources, prompt: Prompt, compression: Compression, staging: Staging
) -> LeaderIndex | None:
    """Leader keys, where a later question may choose again: all windows are kept below, not all of them here."""
    if (
        _is_full(prompt, compression)
        or compression.retention is not Retention.FULL
        or resources.profile is None
    ):
        return None
    return LeaderIndex.build(resources.profile, staging, prompt.num_tokens)


def _choose(
    resources: Resources,
    prompt: Prompt,
    compression: Compression,
    selector: Selector,
    staging: Staging,
    observed: Observed,
    index: LeaderIndex | None,
) -> WindowSelection:
    if _is_full(prompt, compression):
        windows = tuple(tuple(windows) for windows in prompt.all_windows())
        return WindowSelection(windows, fidelity=1.0, task=compression.task)
    observation = Observation(
        queries=observed.by_layer,
        keys=lambda layer: staging.keys(layer, prompt.num_tokens),
        values=lambda layer: staging.values(layer, prompt.num_tokens),
        token_ids=prompt.token_ids,
        num_tokens=prompt.num_tokens,
        scales=resources.model.scales,
        layout=prompt.layout,
    )
    budget = block_budget(prompt, compression.kept_ratio, 0 if index is None else index.size_bytes)
    selection = selector.select(observation, budget_bytes=budget, task=compression.task)
    assert isinstance(selection, WindowSelection)
    return selection


def _outgoing(
    resources: Resources,
    prompt: Prompt,
    compression: Compression,
    selected: Windows,
    index: LeaderIndex | None,
    staging: Staging,
) -> list[Frame]:
    kept = prompt.all_windows() if compression.retention is Retention.FULL else selected
    frames = _block_frames(resources, prompt, kept, staging)
    if index is not None:
        frames += index.frames(index_addresses(prompt, index.profile))
    return frames


def _block_frames(resources: Resources, prompt: Prompt, windows: Windows, staging: Staging) -> list[Frame]:
    dtype = dtype_name(resources.model.dtype)
    frames = []
    for group in prompt.layout.groups:
        pieces = stage_out(staging, prompt.layout, group, windows[group.index], prompt.num_tokens)
        shape = prompt.layout.block_shape(group)
        frames += [
            Frame(FrameKind.BLOCK, prompt.address(group, window), dtype, shape, piece)
            for window, piece in zip(windows[group.index], pieces, strict=True)
        ]
    return frames
