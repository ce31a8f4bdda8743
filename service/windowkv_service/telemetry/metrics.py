"""All metrics of one worker, on a registry of its own: two workers in one process share nothing.

Labels are bounded: tiers, calls, reasons and methods come from this code's own lists. A cache's id, a tenant
or anything of a prompt is never a label.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, GCCollector, Info, PlatformCollector, ProcessCollector

from windowkv_service.domain.results import EngineStatus, ModelInfo
from windowkv_service.telemetry.grpc_metrics import GrpcMetrics
from windowkv_service.telemetry.request_metrics import RequestMetrics
from windowkv_service.telemetry.step_metrics import StepMetrics
from windowkv_service.telemetry.tier_metrics import TierMetrics


class Metrics:
    """One worker's metrics, by who feeds them.

    requests: the engine, as requests begin and end.      steps: the engine's loop, once per step.
    tiers: the cache and its transfers.                   grpc: the server's interceptor.
    Every method is safe from any thread, takes microseconds and never raises for a caller's input.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry(auto_describe=True) if registry is None else registry
        self.requests = RequestMetrics(self.registry)
        self.steps = StepMetrics(self.registry)
        self.tiers = TierMetrics(self.registry)
        self.grpc = GrpcMetrics(self.registry)
        self._build = Info("windowkv_build", "What is running.", registry=self.registry)
        self._model = Info("windowkv_model", "The model being served.", registry=self.registry)

    def describe_build(self, version: str, device: str) -> None:
        self._build.info({"version": version, "device": device})

    def describe_model(self, model: ModelInfo) -> None:
        self._model.info(
            {
                "name": model.name,
                "digest": model.digest[:16],
                "architecture": model.architecture,
                "dtype": model.dtype,
                "window_size": str(model.window_size),
                "kv_bytes_per_token": str(model.kv_bytes_per_token),
            }
        )

    def observe_status(self, status: EngineStatus) -> None:
        """Set the gauges that a status carries: queue lengths and what each tier holds."""
        self.requests.set_load(status.num_running, status.num_waiting)
        for tier in status.tiers:
            self.tiers.set_bytes(tier.tier, capacity_bytes=tier.capacity_bytes, used_bytes=tier.used_bytes)

    def watch_process(self) -> None:
        """Add process_* and python_* metrics. They describe the whole process: once per process is enough."""
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
