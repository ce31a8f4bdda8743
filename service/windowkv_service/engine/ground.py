"""What an answer stands on: a prompt's windows on the device, and what it took to bring them there."""

from __future__ import annotations

from dataclasses import dataclass

from windowkv_service.cache.entry import Entry
from windowkv_service.domain.requests import Compression, GenerateRequest, QuestionSelection, Retention
from windowkv_service.domain.results import MissReason
from windowkv_service.engine.blocks import Claim
from windowkv_service.engine.budget import ASKED_TOKENS, asked_windows, block_budget
from windowkv_service.engine.entries import claim_windows, make_resident, prompt_of
from windowkv_service.engine.fetch import FetchReport
from windowkv_service.engine.index import LeaderIndex
from windowkv_service.engine.lookup import find
from windowkv_service.engine.prefill import prefill
from windowkv_service.engine.prompt import Prompt, Windows
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.task import Walk
from windowkv_service.errors import BadOption

UNCOMPRESSED = Compression(method="full", kept_ratio=1.0, retention=Retention.SELECTED)


@dataclass
class Ground:
    """claim changes when a question chooses windows of its own, which it does where mode is QUESTION, once or more.

    fidelity: of the windows that are read; of several choices the lowest. num_choices: how many a question made.
    num_again: how many of the prompt's last tokens run again where there is no new input.
    """

    prompt: Prompt
    claim: Claim
    fidelity: float
    report: FetchReport
    num_cached: int
    mode: QuestionSelection = QuestionSelection.PUBLISHED
    entry: Entry | None = None
    index: LeaderIndex | None = None
    diverged_at: int | None = None
    num_again: int = 1
    num_choices: int = 0
    _most_bytes: int = 0

    def chosen(self, fidelity: float) -> None:
        """The claim is of a choice that captured so much."""
        self.fidelity = min(self.fidelity, fidelity) if self.num_choices else fidelity
        self.num_choices += 1
        self._most_bytes = max(self._most_bytes, self._held_bytes())

    @property
    def device_bytes(self) -> int:
        """The most that the device held of the prompt for this answer at any time: the entry's blocks, the answer's,
        each block once, and the leader keys."""
        return max(self._most_bytes, self._held_bytes())

    def _held_bytes(self) -> int:
        held = self.claim.windows if self.entry is None else _union(self.claim.windows, self.entry.resident)
        return self.prompt.block_bytes(held) + (0 if self.index is None else self.index.size_bytes)

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
    ground = Ground(prompt, done.claim, 1.0, report, done.chosen.num_reused)
    if done.chosen.num_reused == 0:
        num_common = resources.store.nearest(request.tenant, request.token_ids)
        report.miss_reason = MissReason.TOKENS_DIVERGED if num_common else MissReason.NOT_CACHED
        ground.diverged_at = num_common or None
    return ground


def ground_on_cache(resources: Resources, request: GenerateRequest) -> Walk[Ground]:
    """A cache's windows as far as they are known before the question, claimed on the device; its entry pinned. Where
    the question chooses, it begins on what the entry holds, and on the prompt's end where the question is there."""
    assert request.cache is not None
    entry = yield from find(resources, request.tenant, request.cache)
    resources.check_length(entry.token_count + len(request.token_ids) + 1)
    resources.store.pin(entry)
    try:
        report = FetchReport()
        yield from make_resident(resources, entry, report)
        prompt = prompt_of(resources, entry)
        mode = _mode(request, entry)
        asked, num_again = _asked(request, prompt, entry, mode)
        windows, fidelity = _first_windows(prompt, entry, mode, asked)
        claim = yield from claim_windows(resources, entry, prompt, windows, report)
        resources.store.hit(entry)
    except BaseException:
        resources.store.unpin(entry)
        raise
    return Ground(
        prompt, claim, fidelity, report, prompt.num_tokens, mode, entry, _index_of(entry), num_again=num_again
    )


def _asked(
    request: GenerateRequest, prompt: Prompt, entry: Entry, mode: QuestionSelection
) -> tuple[range, int]:
    """Where the question is, as far as it is in the cached prompt, and how many tokens of it run again.

    Its windows are read from the cache, and those run again that vote. Where there is no room for its windows all of it
    runs again, in the tail, like a question that comes later."""
    index = _index_of(entry)
    if request.token_ids or mode is not QuestionSelection.QUESTION or index is None:
        return range(0), 1
    kept_ratio = request.kept_ratio or entry.compression.kept_ratio
    budget_bytes = block_budget(prompt, kept_ratio, index.size_bytes)
    asked = asked_windows(prompt, index.profile, budget_bytes)
    return asked, index.profile.vote_tokens if asked else ASKED_TOKENS


def _mode(request: GenerateRequest, entry: Entry) -> QuestionSelection:
    """Who chooses the windows of a resident entry; AUTO is resolved."""
    can_choose = entry.index is not None
    if request.selection is QuestionSelection.AUTO:
        return QuestionSelection.QUESTION if can_choose else QuestionSelection.PUBLISHED
    if request.selection is QuestionSelection.QUESTION and not can_choose:
        raise BadOption("there are no leader keys to choose windows with", field="selection.mode")
    keeps_all = entry.compression.retention is Retention.FULL and not entry.tokens
    if request.selection is QuestionSelection.FULL and not keeps_all:
        raise BadOption("only what was selected is kept", field="selection.mode")
    return request.selection


def _first_windows(
    prompt: Prompt, entry: Entry, mode: QuestionSelection, asked: range
) -> tuple[Windows, float]:
    """And their fidelity."""
    if mode is QuestionSelection.FULL:
        return prompt.all_windows(), 1.0
    if mode is QuestionSelection.PUBLISHED:
        return entry.windows, entry.fidelity
    ends = [list(asked) if group.is_selectable else [] for group in prompt.layout.groups]
    return _union(entry.resident, ends), entry.fidelity


def _union(one: Windows, other: Windows) -> Windows:
    return [sorted({*mine, *yours}) for mine, yours in zip(one, other, strict=True)]


def _index_of(entry: Entry) -> LeaderIndex | None:
    assert entry.index is None or isinstance(entry.index, LeaderIndex)
    return entry.index
