"""What callers feel: queues, latencies, tokens, refusals."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from windowkv_service.domain.requests import QuestionSelection
from windowkv_service.domain.results import CreateOutcome, Tier, Usage
from windowkv_service.errors import WindowKVError

Call = Literal["create", "generate"]
CancelReason = Literal["client", "deadline", "drain"]

COMPUTED = "computed"  # the source of tokens that no tier had
SOURCES = (COMPUTED, *(tier.value for tier in Tier))
CALLS = ("create", "generate")
CANCEL_REASONS = ("client", "deadline", "drain")

# From a warm hit of the smallest model on a GPU to a million-token prefill on a CPU.
LATENCY_BUCKETS = (
    0.002,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    180.0,
    600.0,
)
TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.5)
# Fine where it matters: a selection that misses a tenth of the attention mass is already a bad one.
FIDELITY_BUCKETS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 1.0)


def source_of(tier: Tier | None) -> str:
    return COMPUTED if tier is None else tier.value


class RequestMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._make_load(registry)
        self._make_latencies(registry)
        self._make_tokens(registry)
        self._make_ends(registry)

    def _make_load(self, registry: CollectorRegistry) -> None:
        self._running = Gauge("windowkv_requests_running", "Requests in the batch.", registry=registry)
        self._waiting = Gauge("windowkv_requests_waiting", "Requests waiting for room.", registry=registry)

    def _make_latencies(self, registry: CollectorRegistry) -> None:
        self._first_token = Histogram(
            "windowkv_time_to_first_token_seconds",
            "From a request's arrival to its first token, by where its cached tokens came from.",
            ["source"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._between_tokens = Histogram(
            "windowkv_inter_token_latency_seconds",
            "Between two tokens of one answer.",
            buckets=TOKEN_BUCKETS,
            registry=registry,
        )
        self._duration = Histogram(
            "windowkv_request_duration_seconds",
            "From a request's arrival to its end; those that were refused or broken off are not counted.",
            ["call"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._queue = Histogram(
            "windowkv_queue_seconds",
            "From a request's arrival to its admission.",
            ["call"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._prefill = Histogram(
            "windowkv_prefill_seconds",
            "Computing the KV cache of a new prompt; cache hits are not counted.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        for source in SOURCES:
            self._first_token.labels(source)
        for call in CALLS:
            self._duration.labels(call)
            self._queue.labels(call)

    def _make_tokens(self, registry: CollectorRegistry) -> None:
        self._prompt_tokens = Counter(
            "windowkv_prompt_tokens_total",
            "Prompt tokens by where their KV came from.",
            ["source"],
            registry=registry,
        )
        self._generated_tokens = Counter(
            "windowkv_generated_tokens_total", "Tokens generated.", registry=registry
        )
        self._selections = Counter(
            "windowkv_question_selections_total",
            "Questions on cached prompts, by which windows they attended to.",
            ["selection"],
            registry=registry,
        )
        self._fidelity = Histogram(
            "windowkv_question_fidelity",
            "Share of the leaders' attention mass that an answer's windows captured.",
            buckets=FIDELITY_BUCKETS,
            registry=registry,
        )
        self._recomputes = Counter(
            "windowkv_recomputes_total",
            "Answers whose lost or corrupt blocks were computed again from the prompt's tokens.",
            registry=registry,
        )
        for source in SOURCES:
            self._prompt_tokens.labels(source)
        for selection in QuestionSelection:
            if selection is not QuestionSelection.AUTO:
                self._selections.labels(selection.value)

    def _make_ends(self, registry: CollectorRegistry) -> None:
        self._cancelled = Counter(
            "windowkv_cancelled_total", "Requests given up before their end.", ["reason"], registry=registry
        )
        self._rejected = Counter(
            "windowkv_rejected_total",
            "Requests refused, by the error's reason.",
            ["reason"],
            registry=registry,
        )
        for reason in CANCEL_REASONS:
            self._cancelled.labels(reason)

    def set_load(self, num_running: int, num_waiting: int) -> None:
        self._running.set(num_running)
        self._waiting.set(num_waiting)

    def token_after(self, seconds: float) -> None:
        """A token followed the one before it in the same answer after so many seconds."""
        self._between_tokens.observe(seconds)

    def created(self, outcome: CreateOutcome, source: Tier | None) -> None:
        """A cache was created; source is the tier of its num_reused tokens, None when there are none."""
        self._queue.labels("create").observe(outcome.queue_s)
        tokens = outcome.cache.token_count
        self._count_prompt(tokens - outcome.num_reused, outcome.num_reused, source)
        if not outcome.is_hit:
            self._prefill.observe(outcome.prefill_s)

    def answered(self, usage: Usage) -> None:
        """An answer ended with its usage."""
        self._queue.labels("generate").observe(usage.queue_s)
        self._count_prompt(usage.prompt_tokens - usage.cached_tokens, usage.cached_tokens, usage.source_tier)
        self._generated_tokens.inc(usage.generated_tokens)
        self._first_token.labels(source_of(usage.source_tier)).observe(usage.time_to_first_token_s)
        if usage.cached_tokens:
            self._fidelity.observe(usage.fidelity)
        if usage.is_recomputed:
            self._recomputes.inc()

    def selected(self, selection: QuestionSelection) -> None:
        """A question chose its windows; AUTO has been resolved by then."""
        self._selections.labels(selection.value).inc()

    def ended(self, call: Call, seconds: float) -> None:
        self._duration.labels(call).observe(seconds)

    def cancelled(self, reason: CancelReason) -> None:
        self._cancelled.labels(reason).inc()

    def rejected(self, error: WindowKVError) -> None:
        self._rejected.labels(error.reason.lower()).inc()

    def _count_prompt(self, num_computed: int, num_cached: int, source: Tier | None) -> None:
        self._prompt_tokens.labels(COMPUTED).inc(num_computed)
        self._prompt_tokens.labels(source_of(source)).inc(num_cached)
