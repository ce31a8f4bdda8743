"""CREATE: a prompt gets a name. The same prompt, compressed the same way, is prefilled once."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from contextlib import suppress

from windowkv_service.cache.entry import Entry
from windowkv_service.cache.store import Presence
from windowkv_service.domain.keys import TOKEN_ARRAY
from windowkv_service.domain.requests import Compression, CreateRequest
from windowkv_service.domain.results import CreateOutcome, PrefillProgress
from windowkv_service.engine.aliases import announce
from windowkv_service.engine.durability import acknowledged, settle
from windowkv_service.engine.entries import info, spill, spread, take_alias_below
from windowkv_service.engine.fetch import FetchReport
from windowkv_service.engine.lookup import adopt, landed
from windowkv_service.engine.prefill import Prefilled, prefill
from windowkv_service.engine.prompt import Prompt
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.task import Walk
from windowkv_service.errors import BadOption, TierDown, UnknownMethod

OnProgress = Callable[[PrefillProgress], None]


def create(resources: Resources, request: CreateRequest, on_progress: OnProgress) -> Walk[CreateOutcome]:
    """A hit when the cache exists, here or below; else a prefill. Answers once it is as durable as was asked."""
    resources.check_tokens(request.token_ids)
    _check(resources, request.compression)
    namespace, codec = resources.namespace(request.tenant), request.compression.codec
    prompt = Prompt(request.token_ids, namespace, resources.model.layout, codec=codec)
    cache_id = prompt.namespace.cache_id(request.token_ids, request.compression)
    submitted = time.monotonic()
    entry = yield from _known(resources, request.tenant, cache_id)
    if entry is not None:
        outcome = yield from _hit(resources, request, entry, time.monotonic() - submitted)
        resources.metrics.requests.created(outcome, outcome.cache.tier)
        return outcome
    resources.store.reserve(cache_id)
    try:
        report = FetchReport()
        done = yield from prefill(resources, prompt, request.compression, report, on_progress)
        entry = _record(resources, request, cache_id, done)
        previous = resources.store.holder(request.tenant, request.alias)
        resources.store.publish(entry)
        resources.settle_index(entry)
    except BaseException:
        resources.store.abandon(cache_id)
        raise
    jobs = [spill(resources, entry, done.frames)]
    if entry.alias:
        take_alias_below(resources, previous, entry)
        jobs.append(announce(resources, entry))
    for job in jobs:
        yield from acknowledged(job, request.durability)
    outcome = CreateOutcome(
        info(resources, entry), False, done.chosen.num_reused, done.prefill_s, done.queue_s
    )
    resources.metrics.requests.created(outcome, report.farthest if done.chosen.num_reused else None)
    resources.metrics.steps.compressed(outcome.cache, done.compress_s)
    return outcome


def _check(resources: Resources, compression: Compression) -> None:
    selector = resources.selectors.get(compression.method)
    if selector is None:
        known = ", ".join(sorted(resources.selectors))
        message = f"unknown compression method {compression.method!r}; known: {known}"
        raise UnknownMethod(message, field="compression.method")
    if compression.min_fidelity is not None and selector.chooses_tokens:
        message = f"{compression.method} keeps single tokens: there are no windows to add"
        raise BadOption(message, field="compression.min_fidelity")


def _known(resources: Resources, tenant: str, cache_id: str) -> Walk[Entry | None]:
    if (yield from landed(resources, cache_id)) is Presence.PRESENT:
        return resources.store.entry(cache_id)
    entry = None
    with suppress(TierDown):  # it is made again where nobody can say whether it exists
        entry = yield from adopt(resources, tenant, cache_id)
    if entry is None and (yield from landed(resources, cache_id)) is Presence.PRESENT:
        return resources.store.entry(cache_id)  # somebody else was quicker
    return entry


def _hit(resources: Resources, request: CreateRequest, entry: Entry, queue_s: float) -> Walk[CreateOutcome]:
    """Creating again renews: the longer life wins, and what the caller names is taken over."""
    expire_time = resources.clock() + resources.limits.ttl(request.ttl_s)
    previous = resources.store.holder(request.tenant, request.alias)
    resources.store.update(
        entry,
        expire_time=max(expire_time, entry.expire_time),
        pinned=request.pinned or None,
        display_name=request.display_name or None,
        labels=request.labels or None,
        alias=request.alias or None,
    )
    resources.store.hit(entry)
    spread(resources, entry)
    if request.alias:
        take_alias_below(resources, previous, entry)
        yield from acknowledged(announce(resources, entry), request.durability)
    yield from settle(resources, entry, request.durability)
    return CreateOutcome(info(resources, entry), True, entry.token_count, 0.0, queue_s)


def _record(resources: Resources, request: CreateRequest, cache_id: str, done: Prefilled) -> Entry:
    """The books' record of what prefill made; the entry takes over the claim's blocks."""
    now = resources.clock()
    chosen, prompt = done.chosen, done.chosen.prompt
    entry = Entry(
        cache_id=cache_id,
        tenant=request.tenant,
        token_ids=array(TOKEN_ARRAY, request.token_ids),
        compression=request.compression,
        window_size=prompt.layout.window_size,
        windows=tuple(tuple(row) for row in chosen.windows),
        resident=tuple(tuple(row) for row in done.claim.windows),
        retained=tuple(tuple(row) for row in chosen.retained),
        tokens={} if prompt.strips is None else prompt.strips.tokens,
        create_time=now,
        expire_time=now + resources.limits.ttl(request.ttl_s),
        display_name=request.display_name,
        labels=dict(request.labels),
        alias=request.alias,
        alias_time=now,
        pinned=request.pinned,
        fidelity=chosen.fidelity,
        full_bytes=prompt.layout.full_bytes(prompt.num_tokens),
        stored_bytes=prompt.block_bytes(done.claim.windows) + chosen.index_bytes,
        index_bytes=chosen.index_bytes,
        profile_digest=b"" if chosen.index is None else chosen.index.profile.digest,
        index_pieces=() if chosen.index is None else chosen.index.pieces,
    )
    entry.locate(prompt.namespace, prompt.chain)
    entry.blocks = done.claim.placed()
    entry.index = chosen.index
    return entry
