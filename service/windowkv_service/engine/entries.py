"""Entries: brought back to the device, described, changed and dropped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from windowkv_service.cache import manifest
from windowkv_service.cache.entry import Entry
from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.jobs import Job, ManifestRef, ManifestWrite, Spilled
from windowkv_service.domain.keys import Address
from windowkv_service.domain.requests import ListRequest, UpdateRequest
from windowkv_service.domain.results import CacheInfo, CachePage, CacheState, DeleteReceipt, Tier
from windowkv_service.engine.aliases import announce, retire
from windowkv_service.engine.blocks import Claim, claim_stored
from windowkv_service.engine.budget import resident_of
from windowkv_service.engine.fetch import FetchReport, fetch
from windowkv_service.engine.index import LeaderIndex, assemble_index, index_addresses
from windowkv_service.engine.lookup import adopt_all, find
from windowkv_service.engine.prefill import prefill_again, rebuild_index
from windowkv_service.engine.prompt import Prompt, Windows
from windowkv_service.engine.resources import Resources, finished
from windowkv_service.engine.task import Walk
from windowkv_service.errors import TierDown
from windowkv_service.kv.strips import Strips
from windowkv_service.telemetry import get_logger

log = get_logger(__name__)


def prompt_of(resources: Resources, entry: Entry) -> Prompt:
    layout = resources.model.layout
    strips = Strips(layout, entry.tokens, entry.compression.method) if entry.tokens else None
    namespace, codec = resources.namespace(entry.tenant), entry.compression.codec
    return Prompt(entry.token_ids, namespace, layout, strips, codec, entry.block_addresses)


def make_resident(resources: Resources, entry: Entry, report: FetchReport) -> Walk[None]:
    """Bring an evicted or adopted entry's windows and leader keys back to the device."""
    if entry.is_resident:
        return
    prompt = prompt_of(resources, entry)
    resident = _resident_of(resources, entry, prompt)
    claim = yield from claim_windows(resources, entry, prompt, resident, report)
    try:
        index = yield from _restore_index(resources, entry, prompt, report)
    except BaseException:
        claim.release()
        raise
    if entry.blocks is not None:  # somebody else was quicker
        claim.release()
        return
    index_bytes = 0 if index is None else index.size_bytes
    resources.store.restore(entry, claim.placed(), index, index_bytes)
    entry.resident = tuple(tuple(row) for row in resident)
    entry.stored_bytes = prompt.block_bytes(resident) + index_bytes
    resources.settle_index(entry)


def _resident_of(resources: Resources, entry: Entry, prompt: Prompt) -> Windows:
    """By today's leaders: the index that comes back is theirs."""
    index_bytes = 0
    profile = resources.profiles.get(entry.compression.method)
    if entry.profile_digest and profile is not None:
        index_bytes = profile.index_bytes(prompt.layout, prompt.num_tokens)
    return resident_of(resources, prompt, entry.compression, entry.windows, index_bytes)


def _restore_index(
    resources: Resources, entry: Entry, prompt: Prompt, report: FetchReport
) -> Walk[LeaderIndex | None]:
    """From its pieces; where they are lost, or of other leaders than today's, from the prompt itself."""
    profile = resources.profiles.get(entry.compression.method)
    if not entry.profile_digest or profile is None:
        return None
    if entry.profile_digest == profile.digest:
        addresses = index_addresses(prompt, profile)
        ttl_s = seconds_left(resources, entry)
        fetched = yield from fetch(resources, addresses, FrameKind.INDEX, report, ttl_s)
        frames = [frame for frame in fetched.found if isinstance(frame, Frame)]
        index = yield from assemble_index(resources, prompt, profile, frames)
        if index is not None:
            return index
        report.lose(fetched)
    report.is_recomputed = True
    index, frames = yield from rebuild_index(resources, prompt, profile, report)
    former = resources.store.reindex(
        entry, index.profile.digest, index.pieces, [frame.address for frame in frames]
    )
    resources.transfers.submit_drop(former, None)
    spill(resources, entry, frames)
    return index


def claim_windows(
    resources: Resources,
    entry: Entry,
    prompt: Prompt,
    windows: Windows,
    report: FetchReport,
    former: Claim | None = None,
) -> Walk[Claim]:
    """The windows from wherever they are, computed again where they are lost: bytes that are right, or none. What they
    share with a former claim stays, the rest of it is given back before anything is fetched: no more is ever held than
    the larger of the two."""
    ttl_s = seconds_left(resources, entry)
    claim = yield from claim_stored(resources, prompt, windows, report, ttl_s, former)
    if not claim.missing():
        return claim
    claim.release()
    report.is_recomputed = True
    claim, mended = yield from prefill_again(resources, prompt, windows, entry.retained, report)
    spill(resources, entry, mended)
    return claim


def seconds_left(resources: Resources, entry: Entry) -> float:
    """How long copies of its bytes may live; an entry past its time leaves soon."""
    return max(1.0, entry.expire_time - resources.clock())


def spill(
    resources: Resources, entry: Entry, frames: Sequence[Frame], requires: Sequence[Address] = ()
) -> Job[Spilled]:
    """Send bytes of the entry to the tiers below, and then its manifest, if what it requires is there too; the books
    note what arrives."""
    job = _submit(resources, entry, frames, requires)
    resources.follow(job, entry)
    return job


def _submit(
    resources: Resources, entry: Entry, frames: Sequence[Frame], requires: Sequence[Address]
) -> Job[Spilled]:
    listing, ttl_s = resources.namespace(entry.tenant).listing(), seconds_left(resources, entry)
    message = ManifestWrite(listing, manifest.write(entry), requires)
    return resources.transfers.submit_spill(frames, manifest=message, ttl_s=ttl_s)


def describe(resources: Resources, tenant: str, name: str) -> Walk[CacheInfo]:
    return info(resources, (yield from find(resources, tenant, name)))


def list_page(resources: Resources, request: ListRequest) -> Walk[CachePage]:
    with suppress(TierDown):  # what is known here is shown all the same
        yield from adopt_all(resources, request.tenant)
    entries, next_page_token = resources.store.list(request)
    return CachePage(tuple(info(resources, entry) for entry in entries), next_page_token)


def update(resources: Resources, request: UpdateRequest) -> Walk[CacheInfo]:
    """Change what may change, here and in the manifest below."""
    entry = yield from find(resources, request.tenant, request.name)
    expire_time = None if request.ttl_s is None else resources.clock() + resources.limits.ttl(request.ttl_s)
    previous = resources.store.holder(request.tenant, request.alias or "")
    former_alias = entry.alias
    resources.store.update(
        entry,
        expire_time=expire_time,
        pinned=request.pinned,
        display_name=request.display_name,
        labels=request.labels,
        alias=request.alias,
    )
    spread(resources, entry)
    take_alias_below(resources, previous, entry)
    if entry.alias and request.alias:
        announce(resources, entry)
    elif request.alias == "" and former_alias:
        yield from retire(resources, entry, former_alias)
    return info(resources, entry)


def spread(resources: Resources, entry: Entry) -> None:
    """Let the tiers below know the entry's new facts, and let its blocks live as long as it does. Where its bytes never
    arrived in Redis, no manifest may say that they did."""
    alias = [resources.namespace(entry.tenant).alias(entry.alias)] if entry.alias else []
    resources.transfers.submit_extend([*entry.addresses, *alias], seconds_left(resources, entry))
    _submit(resources, entry, [], requires=() if entry.on_redis else entry.addresses)


def take_alias_below(resources: Resources, previous: Entry | None, entry: Entry) -> None:
    """An alias went from previous to entry: the manifest of previous must not claim it for ever."""
    if previous is not None and previous is not entry:
        spread(resources, previous)


def delete(resources: Resources, tenant: str, name: str) -> Walk[DeleteReceipt]:
    """Forget it in every tier. Running answers finish on the blocks that they hold."""
    entry = yield from find(resources, tenant, name)
    if entry.alias:
        yield from retire(resources, entry, entry.alias)
        entry = resources.store.get(tenant, entry.name)  # it may have gone while we waited
    reference = ManifestRef(resources.namespace(tenant).listing(), entry.manifest_address)
    orphans = resources.store.drop(entry)
    receipt = yield from finished(resources.transfers.submit_drop(orphans, reference))
    on_device = () if entry.is_resident else (Tier.DEVICE,)  # in use: it goes with its last user
    return DeleteReceipt((*on_device, *receipt.confirmed), receipt.unreachable)


def info(resources: Resources, entry: Entry) -> CacheInfo:
    """The entry as callers see it."""
    return CacheInfo(
        name=entry.name,
        model=resources.info.name,
        state=CacheState.READY,
        compression=entry.compression,
        token_count=entry.token_count,
        kept_token_count=prompt_of(resources, entry).count_kept(entry.windows),
        full_bytes=entry.full_bytes,
        stored_bytes=entry.stored_bytes if entry.is_resident else 0,
        index_bytes=entry.index_bytes if entry.is_resident else 0,
        bytes_by_tier=_bytes_by_tier(resources, entry),
        tier=Tier.DEVICE if entry.is_resident else entry.tier_below or Tier.DEVICE,
        create_time=entry.create_time,
        update_time=entry.update_time,
        expire_time=entry.expire_time,
        last_used_time=entry.last_used_time,
        display_name=entry.display_name,
        labels=dict(entry.labels),
        alias=entry.alias,
        pinned=entry.pinned,
        hit_count=entry.hit_count,
        fidelity=entry.fidelity,
        durability=entry.durability,
    )


def _bytes_by_tier(resources: Resources, entry: Entry) -> dict[Tier, int]:
    prompt = prompt_of(resources, entry)
    windows = prompt.whole.packed_bytes(entry.retained)
    below = windows + prompt.packed_bytes(prompt.strip_blocks()) + entry.index_bytes
    return {
        Tier.DEVICE: entry.stored_bytes if entry.is_resident else 0,
        Tier.HOST: below if entry.on_host else 0,
        Tier.REDIS: below if entry.on_redis else 0,
    }
