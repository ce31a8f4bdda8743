"""What an answer stands on: a prompt's windows on the device, and what it took to bring them there."""

from __future__ import annotations

from dataclasses import dataclass

from windowkv_service.cache.entry import Entry
from windowkv_service.domain.requests import Compression, GenerateRequest, Retention
from windowkv_service.domain.results import MissReason
from windowkv_service.engine.blocks import Claim, FetchReport
from windowkv_service.engine.entries import claim_windows, make_resident, prompt_of
from windowkv_service.engine.index import LeaderIndex
from windowkv_service.engine.lookup import find
from windowkv_service.engine.prefill import prefill
from windowkv_service.engine.prompt import Prompt
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.task import Walk

UNCOMPRESSED = Compression(method="full", kept_ratio=1.0, retention=Retention.SELECTED)


@dataclass
class Ground:
    """claim and fidelity change when a question chooses windows of its own."""

    prompt: Prompt
    claim: Claim
    fidelity: float
    report: FetchReport
    num_cached: int
    entry: Entry | None = None
    index: LeaderIndex | None = None
    diverged_at: int | None = None

    def release(self, resources: Resources) -> None:
        self.claim.release()
        if self.entry is not None:
            resources.store.unpin(self.entry)


def ground_on_prompt(resources: Resources, request: GenerateRequest) -> Walk[Ground]:
    """A prompt without a handle: all but its last token are prefilled uncompressed, on what prefix the tiers hold."""
    before = request.token_ids[:-1]
    prompt = Prompt(before, resources.namespace(request.tenant), resources.model.layout)
    report = FetchReport()
    if not before:
        return Ground(prompt, Claim(resources, prompt, prompt.all_windows()), 1.0, report, 0)
    done = yield from prefill(
        resources, prompt, UNCOMPRESSED, report, lambda progress: None, is_kept_below=False
    )
    ground = Ground(prompt, done.claim, 1.0, report, done.num_reused)
    if done.num_reused == 0:
        num_common = resources.store.nearest(request.tenant, request.token_ids)
        report.miss_reason = MissReason.TOKENS_DIVERGED if num_common else MissReason.NOT_CACHED
        ground.diverged_at = num_common or None
    return ground


def ground_on_cache(resources: Resources, request: GenerateRequest) -> Walk[Ground]:
    """A cache's own windows, brought to the device and claimed, its entry pinned."""
    assert request.cache is not None
    entry = yield from find(resources, request.tenant, request.cache)
    resources.check_length(entry.token_count + len(request.token_ids) + 1)
    resources.store.pin(entry)
    try:
        report = FetchReport()
        yield from make_resident(resources, entry, report)
        prompt = prompt_of(resources, entry)
        claim = yield from claim_windows(resources, entry, prompt, entry.windows, report)
        resources.store.hit(entry)
    except BaseException:
        resources.store.unpin(entry)
        raise
    return Ground(prompt, claim, entry.fidelity, report, prompt.num_tokens, entry, _index_of(entry))


def _index_of(entry: Entry) -> LeaderIndex | None:
    assert entry.index is None or isinstance(entry.index, LeaderIndex)
    return entry.index
