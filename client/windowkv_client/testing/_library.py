"""The caches of the in-process server, in a dict."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from windowkv.v1 import cache_pb2, types_pb2
from windowkv_client._errors import BadPageToken, CacheExpired, CacheNotFound
from windowkv_client.testing import _limits as limits

WINDOW_SIZE = 16
BYTES_PER_TOKEN = 1024
DEFAULT_KEPT_RATIO = 0.12


@dataclass
class Shelved:
    """One cache as the wire shows it, and its prompt."""

    message: cache_pb2.Cache
    token_ids: list[int]
    expires: float


class Library:
    """Names are derived from prompt and compression, as the service's are. Safe to use from several threads."""

    def __init__(self, model_name: str, default_ttl_s: float, clock: Callable[[], float]) -> None:
        self._model_name = model_name
        self._default_ttl_s = default_ttl_s
        self._clock = clock
        self._shelf: dict[str, Shelved] = {}
        self._expired: set[str] = set()
        self._lock = threading.RLock()

    def create(self, wanted: cache_pb2.Cache, token_ids: list[int]) -> tuple[cache_pb2.Cache, bool]:
        """The cache of a prompt, and whether it existed."""
        limits.check_compression(wanted.compression)
        limits.check_descriptions(wanted)
        now = self._clock()
        ttl_s = limits.ttl_of(wanted, now, self._default_ttl_s)
        cache = self._described(wanted, token_ids)
        with self._lock:
            self._sweep()
            self._take_alias(cache.name, wanted.alias)
            is_hit = cache.name in self._shelf
            shelved = self._shelf.setdefault(cache.name, Shelved(cache, token_ids, now + ttl_s))
            if not is_hit:
                cache.create_time.FromNanoseconds(int(now * 1e9))
            self._expired.discard(cache.name)
            self._stamp(shelved, now + ttl_s)
            return _copy(shelved.message), is_hit

    def find(self, name: str, field: str) -> Shelved:
        """By name or alias. CacheExpired for one whose time is over, CacheNotFound for any other that is not here."""
        limits.check_name(name, field)
        with self._lock:
            self._sweep()
            if name.startswith("aliases/"):
                alias = name.removeprefix("aliases/")
                name = next((each for each, it in self._shelf.items() if it.message.alias == alias), name)
            if name in self._expired:
                raise CacheExpired(f"{name} has expired", field=field)
            if name not in self._shelf:
                raise CacheNotFound(f"there is no {name}", field=field)
            return self._shelf[name]

    def show(self, name: str) -> cache_pb2.Cache:
        return _copy(self.find(name, "name").message)

    def has(self, name: str) -> bool:
        try:
            self.find(name, "name")
        except CacheNotFound:
            return False
        return True

    def use(self, name: str) -> list[int]:
        """The prompt of a cache that is asked."""
        shelved = self.find(name, "cache")
        shelved.message.hit_count += 1
        shelved.message.last_used_time.FromNanoseconds(int(self._clock() * 1e9))
        return shelved.token_ids

    def page(self, request: cache_pb2.ListCachesRequest) -> cache_pb2.ListCachesResponse:
        limits.check_labels(request.label_filter, "label_filter")
        size = min(request.page_size or 100, 1000)
        with self._lock:
            self._sweep()
            found = [
                each.message
                for each in reversed(self._shelf.values())
                if _carries(each, request.label_filter)
            ]
        names = [cache.name for cache in found]
        after = _unwrap(request.page_token, names) if request.page_token else 0
        more = after + size < len(found)
        token = base64.urlsafe_b64encode(names[after + size - 1].encode()).decode() if more else ""
        return cache_pb2.ListCachesResponse(caches=found[after : after + size], next_page_token=token)

    def update(self, request: cache_pb2.UpdateCacheRequest) -> cache_pb2.Cache:
        paths = limits.update_paths(request)
        limits.check_descriptions(request.cache)
        now = self._clock()
        shelved = self.find(request.cache.name, "cache.name")
        with self._lock:
            self._take_alias(shelved.message.name, request.cache.alias)
            if paths & {"ttl", "expire_time"}:
                shelved.expires = now + limits.ttl_of(request.cache, now, self._default_ttl_s)
            for path in paths & {"pinned", "display_name", "alias"}:
                setattr(shelved.message, path, getattr(request.cache, path))
            if "labels" in paths:
                shelved.message.labels.clear()
                shelved.message.labels.update(request.cache.labels)
            self._stamp(shelved, shelved.expires)
            return _copy(shelved.message)

    def delete(self, name: str) -> None:
        with self._lock:
            del self._shelf[self.find(name, "name").message.name]

    def evict(self, name: str | None) -> None:
        """Forget one cache, or all, as if every tier had lost it."""
        with self._lock:
            for each in list(self._shelf) if name is None else [self.find(name, "name").message.name]:
                del self._shelf[each]

    def _sweep(self) -> None:
        over = {name for name, shelved in self._shelf.items() if shelved.expires <= self._clock()}
        for name in over:
            del self._shelf[name]
        self._expired |= over

    def _take_alias(self, name: str, alias: str) -> None:
        """From whichever other cache holds it."""
        for each, shelved in self._shelf.items():
            if alias and each != name and shelved.message.alias == alias:
                shelved.message.alias = ""

    def _stamp(self, shelved: Shelved, expires: float) -> None:
        shelved.expires = expires
        shelved.message.expire_time.FromNanoseconds(int(expires * 1e9))
        shelved.message.update_time.FromNanoseconds(int(self._clock() * 1e9))

    def _described(self, wanted: cache_pb2.Cache, token_ids: list[int]) -> cache_pb2.Cache:
        compression = cache_pb2.Compression(method="windowkv", kept_ratio=DEFAULT_KEPT_RATIO)
        compression.task, compression.retention = cache_pb2.TASK_AUTO, cache_pb2.RETENTION_FULL
        compression.codec = types_pb2.CODEC_EXACT
        compression.MergeFrom(wanted.compression)
        digest = hashlib.sha256(repr(token_ids).encode() + compression.SerializeToString(deterministic=True))
        kept = int(len(token_ids) * compression.kept_ratio) // WINDOW_SIZE * WINDOW_SIZE
        kept = len(token_ids) if compression.kept_ratio == 1.0 else kept
        cache = cache_pb2.Cache(
            name=f"caches/{digest.hexdigest()[:40]}",
            model=self._model_name,
            compression=compression,
            durability=wanted.durability or cache_pb2.DURABILITY_DEVICE,
            state=cache_pb2.CACHE_STATE_READY,
            token_count=len(token_ids),
            kept_token_count=kept,
            full_bytes=len(token_ids) * BYTES_PER_TOKEN,
            stored_bytes=kept * BYTES_PER_TOKEN,
            tier=types_pb2.TIER_DEVICE,
            fidelity=1.0,
        )
        cache.bytes_by_tier.add(tier=types_pb2.TIER_DEVICE, size_bytes=cache.stored_bytes)
        for field in ("display_name", "alias", "pinned"):
            setattr(cache, field, getattr(wanted, field))
        cache.labels.update(wanted.labels)
        return cache


def _carries(shelved: Shelved, labels: Mapping[str, str]) -> bool:
    return all(shelved.message.labels.get(key) == value for key, value in labels.items())


def _copy(message: cache_pb2.Cache) -> cache_pb2.Cache:
    copy = cache_pb2.Cache()
    copy.CopyFrom(message)
    return copy


def _unwrap(page_token: str, names: list[str]) -> int:
    """How many caches come before the page."""
    try:
        return names.index(base64.b64decode(page_token, altchars=b"-_", validate=True).decode()) + 1
    except ValueError:
        raise BadPageToken(
            "this list gave out no such token; start again without one", field="page_token"
        ) from None
