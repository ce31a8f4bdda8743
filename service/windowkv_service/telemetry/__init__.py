"""What the worker says about itself: metrics for Prometheus, structured logs. The only door to both."""

from windowkv_service.telemetry.endpoint import MetricsEndpoint, serve_metrics
from windowkv_service.telemetry.grpc_metrics import GrpcMetrics
from windowkv_service.telemetry.logs import configure_logging, get_logger, request_context
from windowkv_service.telemetry.metrics import Metrics
from windowkv_service.telemetry.request_metrics import RequestMetrics
from windowkv_service.telemetry.step_metrics import StepMetrics
from windowkv_service.telemetry.tier_metrics import TierMetrics

__all__ = [
    "GrpcMetrics",
    "Metrics",
    "MetricsEndpoint",
    "RequestMetrics",
    "StepMetrics",
    "TierMetrics",
    "configure_logging",
    "get_logger",
    "request_context",
    "serve_metrics",
]
