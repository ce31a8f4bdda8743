"""How far down a cache is written when its creation is answered."""

from __future__ import annotations

from collections.abc import Sequence

from windowkv_service.cache.entry import Entry
from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.jobs import Job, Spilled
from windowkv_service.domain.keys import Address
from windowkv_service.domain.requests import Durability
from windowkv_service.domain.results import Tier
from windowkv_service.engine.entries import prompt_of, seconds_left, spill
from windowkv_service.engine.fetch import FetchReport, fetch
from windowkv_service.engine.prefill import prefill_again, rebuild_index
from windowkv_service.engine.resources import Resources, finished
from windowkv_service.engine.task import Walk
from windowkv_service.errors import TierDown


def acknowledged(job: Job[Spilled], durability: Durability) -> Walk[None]:
    """Wait until the tier that was asked for has acknowledged; TierDown when it does not."""
    if durability is Durability.DEVICE:
        return
    spilled = yield from finished(job)
    if Tier(durability.value) not in spilled.tiers:
        raise TierDown(
            f"{durability.value} did not acknowledge the cache; it is kept above", retry_after_s=1.0
        )


def settle(resources: Resources, entry: Entry, durability: Durability) -> Walk[None]:
    """A cache that exists already is to be as durable as this: what a tier has lost, or never got, goes down again."""
    if durability is Durability.DEVICE or (yield from _is_settled(resources, entry, durability)):
        return
    frames = yield from _all_frames(resources, entry)
    yield from acknowledged(spill(resources, entry, frames), durability)


def _is_settled(resources: Resources, entry: Entry, durability: Durability) -> Walk[bool]:
    """Host memory is believed to have what is below at all; Redis has to show it."""
    if durability is Durability.HOST:
        probed = yield from finished(resources.transfers.submit_probe([entry.addresses]))
        return probed.leading_windows == 1
    spilled = yield from finished(spill(resources, entry, [], requires=entry.addresses))
    return Tier.REDIS in spilled.tiers


def _all_frames(resources: Resources, entry: Entry) -> Walk[list[Frame]]:
    """Everything that the entry keeps below, computed again where it is lost."""
    prompt, report = prompt_of(resources, entry), FetchReport()
    blocks = [address for address in entry.addresses if address not in entry.index_addresses]
    frames = yield from _stored(resources, entry, blocks, FrameKind.BLOCK)
    if frames is None:
        claim, frames = yield from prefill_again(resources, prompt, entry.resident, entry.retained, report)
        claim.release()
    index = yield from _stored(resources, entry, entry.index_addresses, FrameKind.INDEX)
    if index is None:
        profile = resources.profiles[entry.compression.method]
        _, index = yield from rebuild_index(resources, prompt, profile, report)
    return frames + index


def _stored(
    resources: Resources, entry: Entry, addresses: Sequence[Address], kind: FrameKind
) -> Walk[list[Frame] | None]:
    """The frames as they lie below, None unless all are there."""
    ttl_s = seconds_left(resources, entry)
    fetched = yield from fetch(resources, addresses, kind, FetchReport(), ttl_s)
    frames = [frame for frame in fetched.found if isinstance(frame, Frame)]
    return frames if len(frames) == len(addresses) else None
