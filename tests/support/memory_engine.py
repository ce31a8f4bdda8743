"""The engine as the wire room sees it, in a dict, for tests of that room: it answers what it was told."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from windowkv_service.domain.requests import (
    Compression,
    CreateRequest,
    GenerateRequest,
    ListRequest,
    UpdateRequest,
)
from windowkv_service.domain.results import (
    CacheInfo,
    CachePage,
    CacheState,
    CreateOutcome,
    DeleteReceipt,
    EngineStatus,
    FinishReason,
    GenerateChunk,
    ModelInfo,
    PrefillProgress,
    Tier,
    TierHealth,
    TierStatus,
    TokenLogprob,
    Usage,
)
from windowkv_service.errors import BadPageToken, CacheNotFound

MODEL = ModelInfo(
    name="tiny",
    digest="ab" * 32,
    architecture="LlamaForCausalLM",
    vocab_size=300,
    max_tokens=4096,
    num_layers=4,
    num_kv_heads=2,
    head_dim=16,
    window_size=16,
    dtype="float32",
    kv_bytes_per_token=1024,
    methods=("windowkv", "sink"),
)
USAGE = Usage(
    prompt_tokens=20,
    cached_tokens=16,
    kept_tokens=4,
    generated_tokens=2,
    source_tier=Tier.REDIS,
    miss_reason=None,
    diverged_at=None,
    fidelity=0.75,
    time_to_first_token_s=0.25,
    queue_s=0.125,
    blocks_fetched=3,
    bytes_fetched=3000,
    fetch_s=0.0625,
    device_bytes=4096,
    selections=2,
    tail_bytes=512,
    is_recomputed=False,
)
ANSWER = (
    GenerateChunk(
        index=0, text="h", token_ids=(104,), logprobs=(TokenLogprob(104, -0.5, ((104, -0.5), (7, -2.0))),)
    ),
    GenerateChunk(index=1, text="i", token_ids=(105,), finish_reason=FinishReason.STOP, usage=USAGE),
)
HEALTHY = EngineStatus(
    is_ready=True,
    is_draining=False,
    heartbeat_age_s=0.5,
    num_running=1,
    num_waiting=2,
    tiers=(
        TierStatus(Tier.DEVICE, TierHealth.UP, 1000, 10),
        TierStatus(Tier.REDIS, TierHealth.ABSENT, 0, 0),
    ),
)


@dataclass
class MemoryEngine:
    """requests are what has been asked, oldest first.

    trouble, when set, is raised by every call, trouble_after by every answer when all its pieces are out.
    A stream waits before its first piece when hold is set, until go_on is; released says that one was closed.
    """

    model: ModelInfo = MODEL
    answer: tuple[GenerateChunk, ...] = ANSWER
    trouble: Exception | None = None
    trouble_after: Exception | None = None
    health: EngineStatus = HEALTHY
    hold: bool = False
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[object] = field(default_factory=list)
    caches: dict[tuple[str, str], CacheInfo] = field(default_factory=dict)

    async def create_cache(
        self, request: CreateRequest
    ) -> AsyncGenerator[PrefillProgress | CreateOutcome, None]:
        await self._receive(request)
        async with self._opened():
            num_tokens = len(request.token_ids)
            yield PrefillProgress(num_done=num_tokens // 2, num_tokens=num_tokens, num_reused=0)
            cache = make_cache(request)
            is_hit = (request.tenant, cache.name) in self.caches
            self.caches[request.tenant, cache.name] = cache
            yield CreateOutcome(cache=cache, is_hit=is_hit, num_reused=0, prefill_s=1.5, queue_s=0.25)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateChunk, None]:
        await self._receive(request)
        if request.cache is not None:
            self._find(request.tenant, request.cache)
        async with self._opened():
            for chunk in self.answer:
                yield chunk
            if self.trouble_after is not None:
                raise self.trouble_after

    async def get_cache(self, tenant: str, name: str) -> CacheInfo:
        await self._receive((tenant, name))
        return self._find(tenant, name)

    async def list_caches(self, request: ListRequest) -> CachePage:
        await self._receive(request)
        if not f"0{request.page_token}".isdecimal():
            raise BadPageToken("not a page token of this service", field="page_token")
        start = int(request.page_token or 0)
        wanted = request.label_filter.items()
        mine = [
            cache
            for (tenant, _), cache in self.caches.items()
            if tenant == request.tenant and wanted <= cache.labels.items()
        ]
        end = start + (request.page_size or 100)
        return CachePage(tuple(mine[start:end]), str(end) if end < len(mine) else "")

    async def update_cache(self, request: UpdateRequest) -> CacheInfo:
        await self._receive(request)
        cache = self._find(request.tenant, request.name)
        changes = {name: getattr(request, name) for name in ("pinned", "display_name", "labels", "alias")}
        changed = replace(cache, **{name: value for name, value in changes.items() if value is not None})
        if request.ttl_s is not None:
            changed = replace(changed, expire_time=time.time() + request.ttl_s)
        self.caches[request.tenant, cache.name] = changed
        return changed

    async def delete_cache(self, tenant: str, name: str) -> DeleteReceipt:
        await self._receive((tenant, name))
        del self.caches[tenant, self._find(tenant, name).name]
        return DeleteReceipt(confirmed=(Tier.DEVICE, Tier.HOST), unreachable=(Tier.REDIS,))

    def status(self) -> EngineStatus:
        return self.health

    async def _receive(self, request: object) -> None:
        self.requests.append(request)
        if self.trouble is not None:
            raise self.trouble

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        """Around a stream; held at its beginning when told so."""
        self.entered.set()
        try:
            if self.hold:
                await self.go_on.wait()
            yield
        finally:
            self.released.set()

    def _find(self, tenant: str, name: str) -> CacheInfo:
        for (owner, _), cache in self.caches.items():
            if owner == tenant and name in (cache.name, f"aliases/{cache.alias}"):
                return cache
        raise CacheNotFound(f"no cache {name}", field="name")


def make_cache(request: CreateRequest) -> CacheInfo:
    """A cache as the real engine would describe it; whole seconds, so that times survive the wire exactly."""
    compression: Compression = request.compression
    digest = hashlib.sha1(repr((request.token_ids, compression)).encode(), usedforsecurity=False)
    return CacheInfo(
        name=f"caches/{digest.hexdigest()}",
        model=MODEL.name,
        state=CacheState.READY,
        compression=compression,
        token_count=len(request.token_ids),
        kept_token_count=8,
        full_bytes=1000,
        stored_bytes=120,
        index_bytes=20,
        bytes_by_tier={Tier.DEVICE: 120, Tier.HOST: 1000},
        tier=Tier.DEVICE,
        create_time=1_700_000_000.0,
        update_time=1_700_000_001.0,
        expire_time=1_700_003_600.0,
        last_used_time=1_700_000_002.0,
        display_name=request.display_name,
        labels=request.labels,
        alias=request.alias,
        pinned=request.pinned,
        hit_count=3,
        fidelity=0.875,
        durability=request.durability,
    )
