"""An entry by its name: in the books, being prefilled, or known to Redis."""

from __future__ import annotations

from contextlib import suppress

from windowkv_service.cache import manifest
from windowkv_service.cache.entry import Entry
from windowkv_service.cache.frame import Frame, FrameCorrupt
from windowkv_service.cache.store import Presence
from windowkv_service.cache.tiers.base import Miss
from windowkv_service.domain.keys import Namespace
from windowkv_service.domain.requests import Durability
from windowkv_service.domain.results import MissReason
from windowkv_service.engine.aliases import look_up
from windowkv_service.engine.resources import Resources, finished
from windowkv_service.engine.task import Until, Walk
from windowkv_service.errors import CacheExpired, CacheNotFound, TierDown
from windowkv_service.telemetry import get_logger

log = get_logger(__name__)


def find(resources: Resources, tenant: str, name: str) -> Walk[Entry]:
    """The entry of a name: in the books, being prefilled, or known to Redis. Raises CacheNotFound, and TierDown where
    only Redis could tell and cannot be asked."""
    kind, _, rest = name.partition("/")
    if kind == "aliases":
        yield from _follow(resources, tenant, rest)
        return resources.store.get(tenant, name)
    yield from landed(resources, rest)
    try:
        return resources.store.get(tenant, name)
    except CacheNotFound as refusal:
        try:
            yield from adopt(resources, tenant, rest)
        except TierDown:
            if isinstance(refusal, CacheExpired):
                raise refusal from None
            raise
    return resources.store.get(tenant, name)


def _follow(resources: Resources, tenant: str, alias: str) -> Walk[None]:
    """Let the books know which cache the alias names by now: another worker may have repointed it."""
    try:
        record = yield from look_up(resources, tenant, alias)
    except TierDown:
        if resources.store.holder(tenant, alias) is None and not _has_expired(resources, tenant, alias):
            raise
        return
    holder = resources.store.holder(tenant, alias)
    if record is None or (holder is not None and holder.alias_time >= record.given_time):
        return
    with suppress(CacheNotFound):  # the record outlived its cache
        entry = yield from find(resources, tenant, f"caches/{record.cache_id}")
        if entry.alias_time < record.given_time:  # else it was taken away here since
            resources.store.point(entry, alias, record.given_time)


def _has_expired(resources: Resources, tenant: str, alias: str) -> bool:
    try:
        resources.store.get(tenant, f"aliases/{alias}")
    except CacheNotFound as refusal:
        return isinstance(refusal, CacheExpired)
    return False


def landed(resources: Resources, cache_id: str) -> Walk[Presence]:
    """Whether it is there, once nobody is prefilling it any more."""
    while (presence := resources.store.lookup(cache_id)) is Presence.IN_FLIGHT:
        yield Until(lambda: resources.store.lookup(cache_id) is not Presence.IN_FLIGHT)
    return presence


def adopt(resources: Resources, tenant: str, cache_id: str) -> Walk[Entry | None]:
    """Take in what another worker, or this one before its restart, left in Redis under this identity. TierDown where
    Redis cannot be asked."""
    namespace = resources.namespace(tenant)
    frame = yield from finished(resources.transfers.submit_manifest(namespace.manifest(cache_id)))
    if frame == Miss(MissReason.TIER_DOWN):
        raise TierDown("the cache may be in Redis, which cannot be reached", retry_after_s=1.0)
    return _take_in(resources, namespace, tenant, frame) if isinstance(frame, Frame) else None


def adopt_all(resources: Resources, tenant: str) -> Walk[None]:
    """Take in those of the tenant's caches that Redis lists and the books do not know. TierDown where it cannot be
    asked."""
    namespace = resources.namespace(tenant)
    known = resources.store.manifest_addresses(tenant)
    frames = yield from finished(resources.transfers.submit_manifests(namespace.listing(), known))
    if frames is None:
        raise TierDown("the caches in Redis, which cannot be reached, are not known", retry_after_s=1.0)
    for frame in frames:
        _take_in(resources, namespace, tenant, frame)


def _take_in(resources: Resources, namespace: Namespace, tenant: str, frame: Frame) -> Entry | None:
    """Only an entry that is this tenant's, of this model, and not past its time."""
    try:
        layout = resources.model.layout
        entry = manifest.read(frame, namespace, [layout.num_lanes(group) for group in layout.groups])
    except FrameCorrupt as fault:
        log.warning("manifest_refused", reason=fault.reason)
        return None
    if (
        entry.tenant != tenant
        or entry.compression.method not in resources.selectors
        or entry.expire_time <= resources.clock()
        or resources.store.lookup(entry.cache_id) is Presence.IN_FLIGHT
    ):
        return None
    entry.durability = Durability.REDIS
    return resources.store.adopt(entry)
