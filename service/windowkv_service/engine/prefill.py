"""PREFILL: a prompt's KV cache is computed, or reused from the tiers, and its windows are chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

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
from windowkv_service.kv.strips import Strips, rounding_bytes
from windowkv_service.model.attention import Observed
from windowkv_service.selection.base import Observation, Repeated, Selection, Selector, WindowSelection
from windowkv_service.selection.question import QuestionProfile

OnProgress = Callable[[PrefillProgress], None]


@dataclass(frozen=True)
class Prefilled:
    """A prompt's compressed form: windows, of which claim holds what stays on the device, and the frames of all that is
    kept below. retained: the windows among that."""

    claim: Claim
    windows: Windows
    retained: Windows
    fidelity: float
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
        prompt, windows = _laid_out(prompt, selection, compression.method)
        retained = _retained(prompt, windows, compression)
        frames = _outgoing(resources, prompt, retained, index, staging) if is_kept_below else []
        index_bytes = 0 if index is None else index.size_bytes
        resident = resident_of(resources, prompt, compression, windows, index_bytes)
        claim = yield from claim_staged(resources, prompt, resident, staging)
    ended = time.monotonic()
    return Prefilled(
        claim,
        windows,
        retained,
        selection.fidelity,
        index,
        frames,
        num_reused,
        prefill_s=ended - started,
        compress_s=ended - computed,
        queue_s=started - submitted,
    )


def prefill_again(
    resources: Resources, prompt: Prompt, windows: Windows, retained: Windows, report: FetchReport
) -> Walk[tuple[Claim, list[Frame]]]:
    """Blocks were lost or corrupt: compute what cannot be reused. Answers the windows, and the frames of all that is
    retained, to mend what is kept below."""
    yield from resources.staging_free()
    with resources.stage(prompt.num_tokens) as staging:
        yield from _restage_all(resources, prompt, staging, report)
        frames = _outgoing(resources, prompt, retained, None, staging)
        return (yield from claim_staged(resources, prompt, windows, staging)), frames


def rebuild_index(
    resources: Resources, prompt: Prompt, profile: QuestionProfile, report: FetchReport
) -> Walk[tuple[LeaderIndex, list[Frame]]]:
    """The leader keys were lost, or are of other leaders than today's: make them from the prompt. Answers them, and
    the frames to keep below."""
    yield from resources.staging_free()
    with resources.stage(prompt.num_tokens) as staging:
        yield from _restage_all(resources, prompt, staging, report)
        index = LeaderIndex.build(profile, prompt.layout, staging, prompt.num_tokens)
    return index, index.frames(index_addresses(prompt, profile))


def _restage_all(resources: Resources, prompt: Prompt, staging: Staging, report: FetchReport) -> Walk[None]:
    num_reused = yield from reuse(resources, prompt.whole, staging, 0, report)
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
    profile = resources.profiles.get(compression.method)
    if profile is None or _is_full(prompt, compression) or compression.retention is not Retention.FULL:
        return None
    return LeaderIndex.build(profile, prompt.layout, staging, prompt.num_tokens)


def _choose(
    resources: Resources,
    prompt: Prompt,
    compression: Compression,
    selector: Selector,
    staging: Staging,
    observed: Observed,
    index: LeaderIndex | None,
) -> Selection:
    if _is_full(prompt, compression):
        windows = tuple(tuple(windows) for windows in prompt.all_windows())
        return WindowSelection(windows, fidelity=1.0, task=compression.task)
    observation = Observation(
        queries=observed.by_layer,
        keys=lambda layer: staging.keys(layer, prompt.num_tokens),
        num_tokens=prompt.num_tokens,
        scales=resources.model.scales,
        layout=prompt.layout,
        values=lambda layer: staging.values(layer, prompt.num_tokens),
        rotary=resources.runner.rotary,
        token_ids=prompt.token_ids,
        repeat=lambda token_ids: _repeat(resources, prompt, observed.layers, staging, token_ids),
    )
    budget = block_budget(prompt, compression.kept_ratio, 0 if index is None else index.size_bytes)
    if selector.chooses_tokens:
        budget -= rounding_bytes(prompt.layout)
    return selector.select(observation, budget_bytes=budget, task=compression.task)


def _repeat(
    resources: Resources,
    prompt: Prompt,
    layers: Iterable[int],
    staging: Staging,
    token_ids: Sequence[int],
) -> dict[int, Repeated]:
    seen = resources.runner.repeat(token_ids, prompt.num_tokens, staging, layers)
    return {layer: Repeated(queries, keys) for layer, (queries, keys) in seen.items()}


def _laid_out(prompt: Prompt, selection: Selection, method: str) -> tuple[Prompt, Windows]:
    """The prompt as its blocks will hold it, and which blocks those are."""
    if isinstance(selection, WindowSelection):
        return prompt, selection.windows
    split = replace(prompt, strips=Strips.of(prompt.layout, selection.tokens, method))
    return split, split.own_blocks()


def _retained(prompt: Prompt, windows: Windows, compression: Compression) -> Windows:
    """The windows that are kept below, beside the blocks of strips."""
    if compression.retention is Retention.FULL:
        return prompt.all_windows()
    strips = prompt.strips
    return [
        [] if strips is not None and group in strips else windows[group.index]
        for group in prompt.layout.groups
    ]


def _outgoing(
    resources: Resources, prompt: Prompt, retained: Windows, index: LeaderIndex | None, staging: Staging
) -> list[Frame]:
    frames = _block_frames(resources, prompt.whole, retained, staging)
    frames += _block_frames(resources, prompt, prompt.strip_blocks(), staging)
    if index is not None:
        frames += index.frames(index_addresses(prompt, index.profile))
    return frames


def _block_frames(resources: Resources, prompt: Prompt, windows: Windows, staging: Staging) -> list[Frame]:
    dtype, frames = dtype_name(resources.model.dtype), []
    for group in prompt.layout.groups:
        row, shape = windows[group.index], prompt.layout.block_shape(group)
        if not row:
            continue
        blocks = staging.tensor.new_empty((len(row), *shape))
        prompt.gather(staging, group, row, blocks, range(len(row)))
        frames += [
            Frame(FrameKind.BLOCK, prompt.address(group, window), dtype, shape, piece)
            for window, piece in zip(row, stage_out(blocks), strict=True)
        ]
    return frames
