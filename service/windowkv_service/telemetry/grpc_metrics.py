"""The server's calls, under the names of go-grpc-middleware, so that stock gRPC dashboards work on us."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

LABELS = ["grpc_type", "grpc_service", "grpc_method"]
# A stream lives as long as its answer: the same span as request durations.
HANDLING_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0)


class GrpcMetrics:
    """Fed by the server's interceptor, only for calls that have a handler: made-up methods are no labels.

    method is the full name as gRPC gives it, "/windowkv.v1.CacheService/GetCache";
    call_type one of "unary", "server_stream", "client_stream", "bidi_stream".
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._started = Counter("grpc_server_started_total", "Calls begun.", LABELS, registry=registry)
        self._handled = Counter(
            "grpc_server_handled_total", "Calls ended, by status.", [*LABELS, "grpc_code"], registry=registry
        )
        self._handling = Histogram(
            "grpc_server_handling_seconds",
            "From a call's arrival to its status.",
            LABELS,
            buckets=HANDLING_BUCKETS,
            registry=registry,
        )

    def started(self, method: str, call_type: str) -> None:
        self._started.labels(*_labels(method, call_type)).inc()

    def handled(self, method: str, call_type: str, code: str) -> None:
        """code is the status code's name as grpc.StatusCode spells it: "OK", "NOT_FOUND"."""
        self._handled.labels(*_labels(method, call_type), _go_name(code)).inc()

    def observe(self, method: str, call_type: str, seconds: float) -> None:
        self._handling.labels(*_labels(method, call_type)).observe(seconds)


def _labels(method: str, call_type: str) -> tuple[str, str, str]:
    service, _, name = method.strip("/").rpartition("/")
    return call_type, service, name


def _go_name(code: str) -> str:
    """go-grpc-middleware writes codes as Go prints them: OK, NotFound, Canceled."""
    if code in ("OK", "CANCELLED"):
        return {"OK": "OK", "CANCELLED": "Canceled"}[code]
    return "".join(word.capitalize() for word in code.split("_"))
