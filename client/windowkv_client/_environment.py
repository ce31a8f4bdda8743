"""The only place of the SDK that touches the environment."""

from __future__ import annotations

import os

DEFAULT_TARGET = "127.0.0.1:50051"


def target_or_default(target: str | None) -> str:
    """target, else WINDOWKV_TARGET, else a worker on this machine."""
    return target or os.environ.get("WINDOWKV_TARGET") or DEFAULT_TARGET


def token_or_default(token: str | None) -> str | None:
    """token, else WINDOWKV_TOKEN; "" and None send none."""
    return (os.environ.get("WINDOWKV_TOKEN") if token is None else token) or None


def without_settings() -> dict[str, str]:
    """The environment less windowkv's own variables: for a worker that must be as it was told, not as the shell is."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WINDOWKV_")}


def enable_hash_routing() -> None:
    """Let gRPC hash the request's own header (gRFC A76); it looks this up when a channel first picks a worker."""
    os.environ.setdefault("GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY", "true")


def enable_quiet_grpc() -> None:
    """Keep gRPC's own log lines off a terminal where people read answers."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
