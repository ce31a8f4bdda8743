"""What the engine's loop does: its steps, the compression of new prompts, the staging they grow in."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from windowkv_service.domain.results import CacheInfo

Phase = Literal["prefill", "decode"]
PHASES = ("prefill", "decode")

STEP_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0)
RATIO_BUCKETS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 24.0, 32.0, 64.0)
BYTES_BUCKETS = tuple(float(2**n) for n in range(5, 20))  # 32 B to 512 KiB a token


class StepMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._make_steps(registry)
        self._make_compression(registry)

    def _make_steps(self, registry: CollectorRegistry) -> None:
        self._tokens = Histogram(
            "windowkv_tokens_per_step",
            "Tokens that one step of the model ran.",
            ["phase"],
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self._seconds = Histogram(
            "windowkv_step_seconds",
            "One step of the model.",
            ["phase"],
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self._faults = Counter(
            "windowkv_step_faults_total",
            "Steps that raised; each fails the requests of its batch and is logged once.",
            registry=registry,
        )
        self._staging = Gauge(
            "windowkv_staging_bytes", "KV of running prefills, before compression.", registry=registry
        )
        for phase in PHASES:
            self._tokens.labels(phase)
            self._seconds.labels(phase)

    def _make_compression(self, registry: CollectorRegistry) -> None:
        self._ratio = Histogram(
            "windowkv_compression_ratio",
            "Bytes of a prompt's full KV cache over the bytes its entry holds on the device.",
            ["method"],
            buckets=RATIO_BUCKETS,
            registry=registry,
        )
        self._bytes_per_token = Histogram(
            "windowkv_stored_bytes_per_token",
            "Bytes an entry holds on the device, for each token of its prompt.",
            ["method"],
            buckets=BYTES_BUCKETS,
            registry=registry,
        )
        self._compress = Histogram(
            "windowkv_compress_seconds",
            "Scoring and choosing a prompt's windows and gathering their blocks.",
            ["method"],
            buckets=STEP_BUCKETS,
            registry=registry,
        )

    def stepped(self, phase: Phase, num_tokens: int, seconds: float) -> None:
        self._tokens.labels(phase).observe(num_tokens)
        self._seconds.labels(phase).observe(seconds)

    def faulted(self) -> None:
        self._faults.inc()

    def set_staging(self, size_bytes: int) -> None:
        self._staging.set(size_bytes)

    def compressed(self, cache: CacheInfo, seconds: float) -> None:
        """A prompt's KV cache was compressed. Its method is a known one: the label stays bounded."""
        method = cache.compression.method
        self._compress.labels(method).observe(seconds)
        if cache.stored_bytes:
            self._ratio.labels(method).observe(cache.full_bytes / cache.stored_bytes)
            self._bytes_per_token.labels(method).observe(cache.stored_bytes / cache.token_count)
