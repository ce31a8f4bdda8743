"""The HTTP endpoint that Prometheus scrapes: prometheus_client's own server, in a thread of its own."""

from __future__ import annotations

from threading import Thread
from types import TracebackType
from typing import Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server


class MetricsEndpoint:
    """A running endpoint; port is the one really bound. close() may be called twice."""

    def __init__(self, server: WSGIServer, thread: Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve_metrics(registry: CollectorRegistry, port: int, address: str = "127.0.0.1") -> MetricsEndpoint:
    """Serve the registry at http://address:port/metrics until closed. Port 0 takes a free one.

    An IPv6 address may stand in brackets. Raises OSError when the port is taken or the address is not this machine's.
    """
    server, thread = start_http_server(port, addr=address.strip("[]"), registry=registry)
    return MetricsEndpoint(server, thread)
