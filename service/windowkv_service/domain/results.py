"""What the service answers. Plain values; times are seconds since the epoch, durations seconds, sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from windowkv_service.domain.codec import Codec
from windowkv_service.domain.requests import Compression, Durability


class Tier(Enum):
    """Where bytes live, nearest first."""

    DEVICE = "device"
    HOST = "host"
    REDIS = "redis"


class CacheState(Enum):
    BUILDING = "building"
    READY = "ready"


class FinishReason(Enum):
    STOP = "stop"  # an end-of-sequence or stop token, or a stop string
    LENGTH = "length"  # max_tokens, or the model's length


class MissReason(Enum):
    """Why cached bytes could not serve, or not all of them."""

    NOT_CACHED = "not_cached"
    TOKENS_DIVERGED = "tokens_diverged"
    EVICTED = "evicted"
    CORRUPT = "corrupt"
    TIER_DOWN = "tier_down"


@dataclass(frozen=True)
class PrefillProgress:
    """num_done of num_tokens are computed or reused; num_reused of them came from a tier."""

    num_done: int
    num_tokens: int
    num_reused: int


@dataclass(frozen=True)
class CacheInfo:
    """A cached prompt as callers see it."""

    name: str  # "caches/{id}"
    model: str
    state: CacheState
    compression: Compression
    token_count: int
    kept_token_count: int  # chosen when the cache was made; mean over the layer groups
    full_bytes: int  # what the uncompressed cache takes, counted from the layout
    stored_bytes: (
        int  # what the entry holds on the device between questions, from its tensors; 0 when evicted
    )
    index_bytes: int  # the part of stored_bytes that is leader keys
    bytes_by_tier: Mapping[Tier, int]
    tier: Tier  # the nearest tier that holds the entry
    create_time: float
    update_time: float
    expire_time: float
    last_used_time: float
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    alias: str = ""
    pinned: bool = False
    hit_count: int = 0
    fidelity: float = 1.0  # share of the leaders' attention mass that the selection captured
    durability: Durability = Durability.DEVICE


@dataclass(frozen=True)
class CreateOutcome:
    """The end of a creation: the cache, and what it took."""

    cache: CacheInfo
    is_hit: bool  # it existed already, here or below
    num_reused: int  # tokens whose KV came from a tier instead of the model
    prefill_s: float
    queue_s: float


@dataclass(frozen=True)
class CachePage:
    caches: tuple[CacheInfo, ...]
    next_page_token: str


@dataclass(frozen=True)
class DeleteReceipt:
    """Which tiers confirmed that nothing of the cache is left in them, and which could not be reached."""

    confirmed: tuple[Tier, ...]
    unreachable: tuple[Tier, ...]


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int  # cached and new input together
    cached_tokens: int  # of those, served from a cache
    kept_tokens: int  # cached tokens this answer attended to at a time; mean over the layer groups
    generated_tokens: int
    source_tier: Tier | None  # where the cached tokens came from; None when all were computed
    miss_reason: MissReason | None
    diverged_at: int | None  # first token that differs from the nearest cached prompt
    fidelity: float  # share of the leaders' attention mass in the windows read; of several choices the lowest
    time_to_first_token_s: float
    queue_s: float
    blocks_fetched: int
    bytes_fetched: int
    fetch_s: float
    device_bytes: (
        int  # held of the cached prompt for this answer: blocks of cache and answer, each once, leader keys
    )
    selections: (
        int  # how often the windows were chosen for this answer, by the question or by what was generated
    )
    tail_bytes: int  # blocks with the KV of the new input and of the answer
    is_recomputed: bool  # lost or corrupt bytes were computed again from the prompt's tokens


@dataclass(frozen=True)
class TokenLogprob:
    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # (token_id, logprob), best first


@dataclass(frozen=True)
class GenerateChunk:
    """A piece of an answer. index is the position of its first token in the answer; the last piece carries the end."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class ModelInfo:
    name: str
    digest: str  # hex; of the weights and the configuration
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
    default_codec: Codec = Codec.EXACT  # of a cache whose creation does not say


class TierHealth(Enum):
    UP = "up"
    DOWN = "down"
    ABSENT = "absent"  # not configured


@dataclass(frozen=True)
class TierStatus:
    tier: Tier
    health: TierHealth
    capacity_bytes: int
    used_bytes: int


@dataclass(frozen=True)
class EngineStatus:
    is_ready: bool
    is_draining: bool
    heartbeat_age_s: float
    num_running: int
    num_waiting: int
    tiers: tuple[TierStatus, ...]
