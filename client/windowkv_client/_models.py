"""What the SDK answers: frozen values without wire types. Sizes are bytes, durations seconds, times are UTC.

Every enum is a str: `cache.tier == "redis"` and `cache.tier is Tier.REDIS` say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Tier(StrEnum):
    """Where bytes live, nearest first."""

    DEVICE = "device"
    HOST = "host"
    REDIS = "redis"


class Task(StrEnum):
    """Which statistic ranks the windows."""

    AUTO = "auto"
    LOCALIZATION = "localization"
    AGGREGATION = "aggregation"


class Retention(StrEnum):
    """What happens to the windows that selection did not choose."""

    SELECTED = "selected"
    FULL = "full"


class Codec(StrEnum):
    """How the numbers of a cache are written below the device."""

    EXACT = "exact"
    INT8 = "int8"
    FP8 = "fp8"
    INT4 = "int4"


class Durability(StrEnum):
    """How far down a new cache has been written when its creation is answered."""

    DEVICE = "device"
    HOST = "host"
    REDIS = "redis"


class Selection(StrEnum):
    """Which windows a question on a compressed cache attends to."""

    AUTO = "auto"
    QUESTION = "question"
    PUBLISHED = "published"
    FULL = "full"


class CacheState(StrEnum):
    BUILDING = "building"
    READY = "ready"


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"


class MissReason(StrEnum):
    """Why cached bytes could not serve, or not all of them."""

    NOT_CACHED = "not_cached"
    TOKENS_DIVERGED = "tokens_diverged"
    EVICTED = "evicted"
    CORRUPT = "corrupt"
    TIER_DOWN = "tier_down"


@dataclass(frozen=True)
class Progress:
    """A prefill under way: done_tokens of total_tokens are computed or reused, reused_tokens of them from a tier."""

    done_tokens: int
    total_tokens: int
    reused_tokens: int


@dataclass(frozen=True)
class Creation:
    """What it took to make a cache; is_hit when it existed already."""

    is_hit: bool
    reused_tokens: int
    prefill_s: float
    queue_s: float


@dataclass(frozen=True)
class Cache:
    """A cached prompt. Holding one costs nothing: it is a name and what was true when it was read."""

    name: str
    model: str
    state: CacheState
    method: str
    kept_ratio: float  # asked for: the share of full_bytes that the device may hold
    task: Task
    retention: Retention
    min_fidelity: float | None  # asked for: the share of the attention that a choice must capture
    codec: Codec  # how its blocks are written below the device, and so which numbers answers read
    token_count: int
    kept_token_count: int  # chosen when the cache was made; mean over the layer groups
    full_bytes: int  # of the uncompressed cache
    stored_bytes: int  # held on the device between questions, from its tensors; 0 when evicted
    index_bytes: int  # the part of stored_bytes that finds windows for a question
    bytes_by_tier: Mapping[Tier, int]  # below the device as the codec writes them
    tier: Tier | None  # the nearest that holds it
    create_time: datetime
    update_time: datetime
    expire_time: datetime
    last_used_time: datetime
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    alias: str = ""
    pinned: bool = False
    hit_count: int = 0
    fidelity: float = 1.0  # share of the attention mass that the kept windows captured
    durability: Durability = Durability.DEVICE
    creation: Creation | None = field(default=None, compare=False)  # only on the answer of caches.create

    @property
    def stored_ratio(self) -> float:
        """stored_bytes over full_bytes: what the cache costs between questions."""
        return self.stored_bytes / self.full_bytes if self.full_bytes else 0.0


@dataclass(frozen=True)
class Deletion:
    """Which tiers confirmed that nothing of the cache is left in them, and which could not be reached."""

    confirmed: tuple[Tier, ...]
    unreachable: tuple[Tier, ...]


@dataclass(frozen=True)
class Usage:
    """What an answer took."""

    prompt_tokens: int  # cached and new input together
    cached_tokens: int
    kept_tokens: int  # cached tokens attended to at a time; mean over the layer groups
    generated_tokens: int
    source_tier: Tier | None  # None when every token was computed
    miss_reason: MissReason | None
    diverged_at: int | None
    fidelity: float  # share of the attention mass that the windows captured; of several choices the lowest
    time_to_first_token_s: float
    queue_s: float
    blocks_fetched: int
    bytes_fetched: int
    fetch_s: float
    device_bytes: (
        int  # held of the cached prompt for this answer, the cache's own blocks and leader keys included
    )
    tail_bytes: int  # held of the question and the answer
    selections: int  # how often windows were chosen for this answer
    is_recomputed: bool


@dataclass(frozen=True)
class TokenLogprob:
    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # (token_id, logprob), best first


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer; index is the place of its first token in the answer."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class Answer:
    """A whole answer, and the cache it was read from."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    usage: Usage | None
    cache: Cache
    was_prefilled: bool  # the document had to be prefilled for this answer


@dataclass(frozen=True)
class Model:
    """The model that is served."""

    name: str
    digest: str
    architecture: str
    vocab_size: int
    max_tokens: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    window_size: int
    dtype: str
    kv_bytes_per_token: int
    methods: tuple[str, ...]
    default_codec: Codec  # of a cache whose creation does not say


@dataclass(frozen=True)
class TierStatus:
    """health is "up", "down" (the worker goes on without it) or "absent" (not configured)."""

    tier: Tier
    health: str
    capacity_bytes: int
    used_bytes: int


@dataclass(frozen=True)
class WorkerStatus:
    is_ready: bool
    is_draining: bool
    heartbeat_age_s: float
    running_count: int
    waiting_count: int
    tiers: tuple[TierStatus, ...]


@dataclass(frozen=True)
class Health:
    """is_serving is the standard health service's word; model and worker are None where they could not be asked."""

    is_serving: bool
    model: Model | None = None
    worker: WorkerStatus | None = None
