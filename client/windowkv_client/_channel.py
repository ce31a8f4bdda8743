"""An address, as people write it → an open gRPC channel.

    host:port                      one worker
    unix:/run/windowkv.sock        one worker on this machine
    dns:///windowkv-pods:50051     a fleet behind one name
    10.0.0.1:50051,10.0.0.2:50051  a fleet by its addresses

In a fleet a request goes to the worker that holds its document: gRPC's ring_hash over the cache's name, which every
call carries in the header ROUTING_HEADER. A worker that goes away moves its own documents only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from windowkv_client._environment import enable_hash_routing

ROUTING_HEADER = "x-windowkv-cache-key"
MAX_MESSAGE_BYTES = 64 << 20  # a million tokens as packed integers take 5 MiB, their text rather more

_RETRIED = (
    {"service": "windowkv.v1.CacheService"},  # a cache is named by its content: creating it twice is a hit
    {"service": "windowkv.v1.ModelService"},
    {"service": "grpc.health.v1.Health"},
)
_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_RING_HASH = {"ring_hash_experimental": {"minRingSize": 4096, "requestHashHeader": ROUTING_HEADER}}

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True)
class Tls:
    """Certificates in PEM. Without root_certificates the system's are trusted; a key and chain are for mutual TLS."""

    root_certificates: bytes | None = None
    private_key: bytes | None = None
    certificate_chain: bytes | None = None


@dataclass(frozen=True)
class Address:
    """Where the service is and how to speak to it."""

    target: str
    tls: Tls | None = None
    options: Sequence[tuple[str, str | int]] = ()

    def open(self) -> grpc.Channel:
        target, options = self._dial()
        if self.tls is None:
            return grpc.insecure_channel(target, options=options)
        return grpc.secure_channel(target, self._credentials(self.tls), options=options)

    def open_async(self) -> grpc.aio.Channel:
        target, options = self._dial()
        if self.tls is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, self._credentials(self.tls), options=options)

    def _dial(self) -> tuple[str, list[tuple[str, str | int]]]:
        is_fleet = "," in self.target or self.target.startswith(("dns:", "ipv4:", "ipv6:", "xds:"))
        if is_fleet:
            enable_hash_routing()
        config = json.dumps(service_config(is_fleet=is_fleet))
        return grpc_target(self.target), [*_OPTIONS, ("grpc.service_config", config), *self.options]

    @staticmethod
    def _credentials(tls: Tls) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)


def grpc_target(target: str) -> str:
    """The name gRPC resolves; a plain list of addresses needs its family in front."""
    if "," not in target or target.startswith(("ipv4:", "ipv6:")):
        return target
    return ("ipv6:" if target.lstrip().startswith("[") else "ipv4:") + target.replace(" ", "")


def service_config(*, is_fleet: bool) -> dict[str, object]:
    """Which calls gRPC itself tries again, and how it chooses a worker."""
    config: dict[str, object] = {"methodConfig": [{"name": list(_RETRIED), "retryPolicy": _RETRY_POLICY}]}
    if is_fleet:
        config["loadBalancingConfig"] = [_RING_HASH]
    return config
