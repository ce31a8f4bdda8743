"""What every walk needs, handed in once."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from windowkv_service.cache.entry import Entry
from windowkv_service.cache.jobs import Job, ManifestRef, Spilled
from windowkv_service.cache.store import PrefixStore
from windowkv_service.cache.tiers.base import Tier
from windowkv_service.cache.transfers import Transfers
from windowkv_service.domain.keys import Namespace
from windowkv_service.domain.requests import Durability
from windowkv_service.domain.results import ModelInfo, TierStatus
from windowkv_service.domain.results import Tier as TierName
from windowkv_service.engine.device import DeviceTier
from windowkv_service.engine.passes import Passes
from windowkv_service.engine.task import Result, Soon, Until, Walk
from windowkv_service.errors import CacheFull, EmptyPrompt, PromptTooLong, TokenOutOfVocabulary
from windowkv_service.kv.buffers import Staging
from windowkv_service.kv.copies import Copies, Landing
from windowkv_service.model.loader import LoadedModel
from windowkv_service.model.runner import Runner
from windowkv_service.selection.base import Method
from windowkv_service.selection.question import QuestionProfile
from windowkv_service.telemetry import Metrics

INDEX_SHARE = 0.25  # of the blocks' bytes: so much may leader keys take beside them
ROOM_WAIT_S = 30.0  # a request that finds the device full waits this long for others to end


@dataclass(frozen=True)
class Limits:
    """What an operator allows. Durations in seconds."""

    chunk_tokens: int
    max_running: int
    max_waiting: int
    load_budget_s: float
    default_ttl_s: float
    max_ttl_s: float

    def ttl(self, asked_s: float | None) -> float:
        """The life of a cache; asking for more than is allowed gives what is allowed."""
        return min(self.default_ttl_s if asked_s is None else asked_s, self.max_ttl_s)


@dataclass
class Resources:
    """Owned by the worker's thread. clock tells seconds since the epoch; secret is the root of the tenants' secrets."""

    model: LoadedModel
    info: ModelInfo
    runner: Runner
    copies: Copies  # between the device and host memory
    device: DeviceTier
    store: PrefixStore
    transfers: Transfers
    selectors: Mapping[str, Method]
    profiles: Mapping[str, QuestionProfile]  # method → how its questions choose; without one, none does
    metrics: Metrics
    limits: Limits
    secret: bytes
    tiers: Sequence[Tier]  # below the device, nearest first
    clock: Callable[[], float] = time.time
    min_shared: int | None = (
        None  # so many blocks in all tables of a batch are read once for all; None: never
    )
    runs_ahead: bool = False  # decode steps are launched before the tokens of the last one are read
    staging: Staging | None = field(default=None, init=False)
    passes: Passes = field(init=False)
    num_answering: int = field(default=0, init=False)
    _spills: dict[Job[Spilled], Entry] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.passes = Passes.on(self.runner, self.model.layout.window_size, self.model.device)

    def namespace(self, tenant: str) -> Namespace:
        return Namespace(self.model.digest, hmac.new(self.secret, tenant.encode(), hashlib.sha256).digest())

    @contextmanager
    def stage(self, num_tokens: int) -> Iterator[Staging]:
        """Staging for one prompt; whoever enters has waited until it is free. CacheFull where the device has no memory
        for it."""
        assert self.staging is None
        try:
            self.staging = Staging(
                self.model.layout, num_tokens, dtype=self.model.dtype, device=self.model.device
            )
        except torch.OutOfMemoryError as error:
            raise CacheFull(f"the device has no memory to prefill {num_tokens} tokens at once") from error
        self.metrics.steps.set_staging(self.staging.size_bytes)
        try:
            yield self.staging
        finally:
            self.staging = None
            self.metrics.steps.set_staging(0)

    def staging_free(self) -> Walk[None]:
        """One prompt is staged at a time: that bounds the memory, and two would not be done sooner."""
        while self.staging is not None:
            yield Until(lambda: self.staging is None)

    def take_blocks(self, needs: Mapping[int, int]) -> Walk[dict[int, list[int]]]:
        """arena → so many private blocks, all or none."""
        yield from self.room_for(lambda: needs)
        return {arena: self.device.take(arena, count) for arena, count in needs.items()}

    def room_for(self, needs: Callable[[], Mapping[int, int]]) -> Walk[None]:
        """Wait until so many blocks can be had (arena → count, asked again and again): for running requests to end, but
        not for ever. CacheFull where they cannot, or did not."""
        for arena, count in needs().items():
            capacity = self.device.pools[arena].num_blocks
            if count > capacity:
                raise CacheFull(f"{count} blocks are needed at once and the device has {capacity}")
        until = time.monotonic() + ROOM_WAIT_S
        while not self.has_room(needs()):
            if time.monotonic() >= until:
                raise CacheFull("the device is full of caches in use", retry_after_s=ROOM_WAIT_S)
            yield Until(lambda: self.has_room(needs()) or time.monotonic() >= until)

    def settle_index(self, entry: Entry) -> None:
        """An entry has come to the device: leader keys, which are not blocks, must not grow beyond their share."""
        capacity = self.device.status().capacity_bytes
        self.store.trim_indexes(int(INDEX_SHARE * capacity), entry)

    def has_room(self, needs: Mapping[int, int]) -> bool:
        """Whether the blocks can be had now; who must leave for them has left then."""
        return all(self.store.make_room(arena, count) for arena, count in needs.items())

    def check_tokens(self, token_ids: Sequence[int], *, may_be_empty: bool = False) -> None:
        """Refuse what the model cannot read, before anything is spent on it."""
        if not token_ids and not may_be_empty:
            raise EmptyPrompt("a prompt needs at least one token", field="input")
        self.check_length(len(token_ids))
        self.check_vocabulary(token_ids, field="token_ids")

    def check_vocabulary(self, token_ids: Sequence[int], *, field: str) -> None:
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < self.model.vocab_size:
            raise TokenOutOfVocabulary(f"token ids must be in [0, {self.model.vocab_size})", field=field)

    def check_length(self, num_tokens: int) -> None:
        if num_tokens > self.model.max_tokens:
            raise PromptTooLong(
                f"{num_tokens} tokens are more than the model's {self.model.max_tokens}", field="token_ids"
            )

    def follow(self, job: Job[Spilled], entry: Entry) -> None:
        """Note in the entry where its bytes have arrived, once they have."""
        self._spills[job] = entry

    def collect(self) -> None:
        """Take in what the transfers have finished since the last step."""
        for job in self.transfers.poll():
            entry = self._spills.pop(job, None)
            if entry is not None:
                _acknowledge(entry, job.result)

    def expire(self) -> None:
        """Drop what is past its time. The books and the device forget it here; the tiers below by themselves, unless it
        was once to live longer."""
        for entry in self.store.expire(self.clock()):
            if entry.longest_expire_time > entry.expire_time:
                manifest = ManifestRef(self.namespace(entry.tenant).listing(), entry.manifest_address)
                self.transfers.submit_drop(self.store.unneeded(entry), manifest)

    def observe_entries(self) -> None:
        """Set the gauges that count entries. Below the device nothing is pinned."""
        entries = list(self.store.entries())
        resident = [entry for entry in entries if entry.blocks is not None]
        pinned_bytes = sum(entry.stored_bytes for entry in resident if entry.pinned or entry.pins)
        tiers = self.metrics.tiers
        tiers.set_entries(TierName.DEVICE, num_entries=len(resident), pinned_bytes=pinned_bytes)
        tiers.set_entries(TierName.HOST, num_entries=sum(entry.on_host for entry in entries), pinned_bytes=0)
        tiers.set_entries(
            TierName.REDIS, num_entries=sum(entry.on_redis for entry in entries), pinned_bytes=0
        )

    def close(self) -> None:
        """End the transfers and let go of the tiers below."""
        self.transfers.close()
        for tier in self.tiers:
            tier.close()

    def tier_statuses(self) -> tuple[TierStatus, ...]:
        return (self.device.status(), *(tier.status() for tier in self.tiers))


def _acknowledge(entry: Entry, spilled: Spilled) -> None:
    entry.on_host, entry.on_redis = TierName.HOST in spilled.tiers, TierName.REDIS in spilled.tiers
    if spilled.tiers:
        entry.durability = Durability.REDIS if entry.on_redis else Durability.HOST


def finished(job: Job[Result]) -> Walk[Result]:
    """Wait for a transfer and take its result."""
    while not job.is_done:
        yield Until(lambda: job.is_done)
    return job.result


def landed(landing: Landing) -> Walk[None]:
    """Wait for copies. Who is closed meanwhile waits all the same: the memory may be others' after that."""
    try:
        while not landing.is_done():
            yield Soon(landing.is_done)
    finally:
        landing.wait()
