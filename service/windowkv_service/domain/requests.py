"""What a caller asked for. Immutable, validated where it is made, free of wire types and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from windowkv_service.domain.codec import Codec
from windowkv_service.errors import BadBudget, BadOption, BadSampling

Labels = Mapping[str, str]


class Task(Enum):
    """Which statistic ranks the windows (WindowKV, section 3.2)."""

    AUTO = "auto"
    LOCALIZATION = "localization"
    AGGREGATION = "aggregation"


class Retention(Enum):
    """What happens to the windows that selection did not choose."""

    SELECTED = "selected"
    FULL = "full"


class Durability(Enum):
    """How far down a new cache has been written when its creation is answered."""

    DEVICE = "device"
    HOST = "host"
    REDIS = "redis"


class QuestionSelection(Enum):
    """Which windows a question on a compressed cache attends to."""

    AUTO = "auto"  # choose again at the question when the cache retains all windows, else as published
    QUESTION = "question"
    PUBLISHED = "published"  # the windows chosen at prefill
    FULL = "full"  # every window, fetched from below


def _check_fidelity(min_fidelity: float | None, field: str) -> None:
    if min_fidelity is not None and not 0.0 < min_fidelity <= 1.0:
        raise BadBudget(f"min_fidelity must be in (0, 1], not {min_fidelity}", field=field)


@dataclass(frozen=True)
class Compression:
    """How a prompt's KV cache is compressed.

    kept_ratio is the share of the full cache's bytes that the device may hold, in (0, 1], between questions and
    while one is answered; everything stored counts: blocks, observation window, leader keys.
    min_fidelity is the share of the leaders' attention that a choice must capture, in (0, 1], at prefill and at a
    question that does not say otherwise: where kept_ratio does not do, more is kept. None: what kept_ratio captures.
    codec is how blocks lie below the device; what comes up again is what every answer reads, from the first one on.
    """

    method: str = "windowkv"
    kept_ratio: float = 0.12
    task: Task = Task.AUTO
    retention: Retention = Retention.FULL
    min_fidelity: float | None = None
    codec: Codec = Codec.EXACT

    def __post_init__(self) -> None:
        _check_fidelity(self.min_fidelity, "compression.min_fidelity")
        if not 0.0 < self.kept_ratio <= 1.0:
            raise BadBudget(
                f"kept_ratio must be in (0, 1], not {self.kept_ratio}", field="compression.kept_ratio"
            )


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters under vLLM's names. temperature 0 is greedy; top_k 0 and top_p 1 are off."""

    max_tokens: int = 128
    min_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None

    def __post_init__(self) -> None:
        self._require("max_tokens", 1 <= self.max_tokens <= 1_000_000)
        self._require("min_tokens", 0 <= self.min_tokens <= self.max_tokens)
        self._require("temperature", 0.0 <= self.temperature <= 100.0)
        self._require("top_p", 0.0 < self.top_p <= 1.0)
        self._require("top_k", self.top_k >= 0)
        self._require("min_p", 0.0 <= self.min_p <= 1.0)
        self._require("repetition_penalty", 0.0 < self.repetition_penalty <= 100.0)
        self._require("presence_penalty", -2.0 <= self.presence_penalty <= 2.0)
        self._require("frequency_penalty", -2.0 <= self.frequency_penalty <= 2.0)
        self._require("seed", self.seed is None or 0 <= self.seed < 2**63)
        self._require("stop", len(self.stop) <= 16 and all(0 < len(stop) <= 1000 for stop in self.stop))
        self._require("stop_token_ids", len(self.stop_token_ids) <= 256)
        self._require("logprobs", self.logprobs is None or 0 <= self.logprobs <= 20)

    def _require(self, name: str, holds: bool) -> None:
        if not holds:  # a NaN fails every comparison and so ends here too
            raise BadSampling(f"{name} is out of range: {getattr(self, name)!r}", field=f"sampling.{name}")


@dataclass(frozen=True)
class CreateRequest:
    """Prefill token_ids, compress their KV cache and keep it under a name."""

    request_id: str
    tenant: str
    token_ids: tuple[int, ...]
    compression: Compression = Compression()
    ttl_s: float | None = None  # None: the service's default
    pinned: bool = False
    display_name: str = ""
    labels: Labels = field(default_factory=dict)
    alias: str = ""
    durability: Durability = Durability.DEVICE
    deadline: float | None = None  # time.monotonic() seconds


@dataclass(frozen=True)
class GenerateRequest:
    """Continue a cached prompt, or a prompt of its own, with token_ids as the new input.

    With cache, token_ids follow the cached prompt and may be empty; without, they are the whole prompt.
    kept_ratio, min_fidelity: of this question's choices; None: the cache's own.
    reselect_every: generated tokens between two choices; 0: one choice; None: as the model's profile says.
    """

    request_id: str
    tenant: str
    token_ids: tuple[int, ...]
    cache: str | None = None  # "caches/{id}" or "aliases/{alias}"
    sampling: Sampling = Sampling()
    selection: QuestionSelection = QuestionSelection.AUTO
    kept_ratio: float | None = None
    min_fidelity: float | None = None
    reselect_every: int | None = None
    deadline: float | None = None  # time.monotonic() seconds

    def __post_init__(self) -> None:
        if self.kept_ratio is not None and not 0.0 < self.kept_ratio <= 1.0:
            raise BadBudget(
                f"kept_ratio must be in (0, 1], not {self.kept_ratio}", field="selection.kept_ratio"
            )
        _check_fidelity(self.min_fidelity, "selection.min_fidelity")
        if self.reselect_every is not None and self.reselect_every < 0:
            raise BadOption(
                f"reselect_every must not be negative: {self.reselect_every}",
                field="selection.reselect_every",
            )


@dataclass(frozen=True)
class UpdateRequest:
    """Change what may change of a cache; None leaves a field as it is."""

    tenant: str
    name: str
    ttl_s: float | None = None
    pinned: bool | None = None
    display_name: str | None = None
    labels: Labels | None = None
    alias: str | None = None


@dataclass(frozen=True)
class ListRequest:
    """One page of a tenant's caches, newest first. label_filter keeps those that carry all its pairs."""

    tenant: str
    page_size: int = 100
    page_token: str = ""
    label_filter: Labels = field(default_factory=dict)
