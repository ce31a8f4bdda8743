"""Aliases below the device: one small record in Redis says which cache an alias names, for all workers at once."""

from __future__ import annotations

from contextlib import suppress

from windowkv_service.cache import alias_record
from windowkv_service.cache.alias_record import AliasRecord
from windowkv_service.cache.entry import Entry
from windowkv_service.cache.frame import Frame, FrameCorrupt
from windowkv_service.cache.jobs import Job, Spilled
from windowkv_service.cache.tiers.base import Miss
from windowkv_service.domain.results import MissReason
from windowkv_service.engine.resources import Resources, finished
from windowkv_service.engine.task import Walk
from windowkv_service.errors import TierDown
from windowkv_service.telemetry import get_logger

KNOWN_BUDGET_S = 0.25  # how long whoever is known here as the alias's holder waits to be told otherwise

log = get_logger(__name__)


def announce(resources: Resources, entry: Entry) -> Job[Spilled]:
    """The entry has been given its alias just now. After the entry's own spill, so that nobody is led astray."""
    address = resources.namespace(entry.tenant).alias(entry.alias)
    record = alias_record.write(address, AliasRecord(entry.cache_id, entry.alias_time))
    ttl_s = max(1.0, entry.expire_time - resources.clock())
    return resources.transfers.submit_spill([record], manifest=None, ttl_s=ttl_s)


def retire(resources: Resources, entry: Entry, alias: str) -> Walk[None]:
    """The alias names the entry no more; a record that another worker has repointed meanwhile stays."""
    record = None
    with suppress(TierDown):  # it is dropped as soon as Redis is back
        record = yield from look_up(resources, entry.tenant, alias)
    if record is None or record.cache_id == entry.cache_id:
        resources.transfers.submit_drop([resources.namespace(entry.tenant).alias(alias)], None)


def look_up(resources: Resources, tenant: str, alias: str) -> Walk[AliasRecord | None]:
    """What Redis says; None where it says nothing, TierDown where it cannot be asked."""
    is_known = resources.store.holder(tenant, alias) is not None
    budget_s = resources.limits.load_budget_s
    address = resources.namespace(tenant).alias(alias)
    found = yield from finished(
        resources.transfers.submit_alias(
            address, budget_s=min(budget_s, KNOWN_BUDGET_S) if is_known else budget_s
        )
    )
    if found == Miss(MissReason.TIER_DOWN):
        raise TierDown("the alias may be known to Redis, which cannot be reached", retry_after_s=1.0)
    if not isinstance(found, Frame):
        return None
    try:
        return alias_record.read(found)
    except FrameCorrupt as fault:
        log.warning("alias_refused", reason=fault.reason)
        return None
