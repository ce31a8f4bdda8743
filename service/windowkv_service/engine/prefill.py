"""PREFILL: a prompt's KV cache is computed, or reused from the tiers, and its windows are chosen."""

from __future__ import annotations

import time
from dataclasses import dataclass

from windowkv_service.cache.frame import Frame
from windowkv_service.domain.requests import Compression
from windowkv_service.engine.blocks import Claim, claim_staged
from windowkv_service.engine.budget import resident_of
from windowkv_service.engine.choose import Chosen, choose, keeps_whole
from windowkv_service.engine.compute import OnProgress, compute
from windowkv_service.engine.fetch import FetchReport
from windowkv_service.engine.index import LeaderIndex, index_addresses
from windowkv_service.engine.outgoing import Outgoing
from windowkv_service.engine.prompt import Prompt, Windows
from windowkv_service.engine.prune import prune, replay
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.reuse import reuse
from windowkv_service.engine.task import Walk
from windowkv_service.kv.buffers import Staging
from windowkv_service.model.attention import Observed
from windowkv_service.selection.base import Pruner
from windowkv_service.selection.question import QuestionProfile


@dataclass(frozen=True)
class Prefilled:
    """A prompt's compressed form, of which claim holds what stays on the device, and the frames of all that is kept
    below."""

    claim: Claim
    chosen: Chosen
    frames: list[Frame]
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
    what is to be kept below; what that is for certain goes as soon as it is computed."""
    submitted = time.monotonic()
    yield from resources.staging_free()
    with resources.stage(prompt.num_tokens) as staging:
        started, outgoing, certain = time.monotonic(), Outgoing(resources), prompt.no_windows()
        if is_kept_below and keeps_whole(resources, prompt, compression):
            certain = prompt.all_windows()
            outgoing.add(prompt, certain, staging)

        chosen = yield from choose(
            resources, prompt, compression, staging, report, on_progress, outgoing.send
        )
        frames: list[Frame] = []
        if is_kept_below:
            left = [sorted({*row} - {*gone}) for row, gone in zip(chosen.retained, certain, strict=True)]
            frames = yield from _outgoing(outgoing, chosen.prompt, left, chosen.index, staging)
        resident = resident_of(resources, prompt, compression, chosen.windows, chosen.index_bytes)
        claim = yield from claim_staged(resources, chosen.prompt, resident, staging)
    ended = time.monotonic()
    return Prefilled(
        claim,
        chosen,
        frames,
        prefill_s=ended - started,
        compress_s=ended - chosen.computed_time,
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
        frames = yield from _outgoing(Outgoing(resources), prompt, retained, None, staging)
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
    outgoing = Outgoing(resources)
    yield from outgoing.send_index(index, index_addresses(prompt, profile))
    return index, (yield from outgoing.rest())


def _restage_all(resources: Resources, prompt: Prompt, staging: Staging, report: FetchReport) -> Walk[None]:
    """As it was staged when its blocks were made."""
    strips = prompt.strips
    if strips is not None and isinstance(resources.selectors[strips.method], Pruner):
        yield from prune(resources, prompt, staging, replay(strips), lambda progress: None)
        return
    num_reused = yield from reuse(resources, prompt.whole, staging, 0, report)
    yield from compute(resources, prompt, staging, Observed((), 0), num_reused, lambda progress: None)


def _outgoing(
    outgoing: Outgoing, prompt: Prompt, retained: Windows, index: LeaderIndex | None, staging: Staging
) -> Walk[list[Frame]]:
    """All that was added before, the windows that are retained, blocks of strips, and the index."""
    outgoing.add(prompt.whole, retained, staging)
    outgoing.add(prompt, prompt.strip_blocks(), staging)
    if index is not None:
        yield from outgoing.send_index(index, index_addresses(prompt, index.profile))
    return (yield from outgoing.rest())
