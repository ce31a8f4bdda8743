"""windowkv health: is the service well, and what does it serve? Exit status 0 only when it serves."""

from __future__ import annotations

import argparse

from windowkv_client._models import Health, TierStatus
from windowkv_client.cli._connection import connect, timeout
from windowkv_client.cli._terminal import Terminal, size


def add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: list[argparse.ArgumentParser]
) -> None:
    health = commands.add_parser(
        "health", parents=parents, help="is the service well, and what does it serve?"
    )
    health.set_defaults(run=run)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as client:
        health = client.health(**timeout(args))
        target = client.target
    if terminal.is_json:
        terminal.result(health)
    else:
        terminal.facts(target, _facts(health))
    return 0 if health.is_serving else 1


def _facts(health: Health) -> dict[str, object]:
    facts: dict[str, object] = {"serving": "yes" if health.is_serving else "no"}
    if health.model is not None:
        facts["model"] = f"{health.model.name} ({health.model.architecture}), {health.model.dtype}"
        facts["length"] = f"{health.model.max_tokens} tokens"
        facts["KV cache"] = (
            f"{size(health.model.kv_bytes_per_token)} a token, windows of {health.model.window_size}"
        )
        facts["methods"] = ", ".join(health.model.methods)
    if health.worker is not None:
        state = (
            "draining" if health.worker.is_draining else "ready" if health.worker.is_ready else "not ready"
        )
        facts["worker"] = (
            f"{state}; {health.worker.running_count} running, {health.worker.waiting_count} waiting"
        )
        facts |= {f"tier {status.tier}": _tier(status) for status in health.worker.tiers}
    return facts


def _tier(status: TierStatus) -> str:
    if status.health == "absent":
        return "not configured"
    capacity = f" of {size(status.capacity_bytes)}" if status.capacity_bytes else ""
    return f"{status.health}, {size(status.used_bytes)}{capacity}"
