"""Working with a service whose Redis comes and goes."""

from __future__ import annotations

from typing import Any

from asking import create_in_redis, random_tokens
from forgetting import forget_the_host
from running_service import RunningService

from windowkv_client import Client, RetryPolicy
from windowkv_service.engine.resources import Resources

DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)
PATIENT_S = 30.0  # a call that waits for Redis for ever fails at this


def impatient(worker: RunningService) -> Client:
    """Shows each refusal instead of trying again."""
    return Client(worker.target, retry=RetryPolicy(max_attempts=1))


def create(client: Client, **options: Any) -> str:
    options = {"token_ids": DOCUMENT, "kept_ratio": 1.0, "timeout": PATIENT_S, **options}
    if options.pop("durability", "device") == "redis":
        return create_in_redis(client, **options).name
    return client.caches.create(**options).name


def demand(client: Client, **options: Any) -> None:
    """Create once, and insist on Redis."""
    client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0, durability="redis", timeout=PATIENT_S, **options)


def redis_health(client: Client) -> str:
    worker = client.health().worker
    assert worker is not None
    return {status.tier: status.health for status in worker.tiers}["redis"]


def is_up(client: Client) -> bool:
    return redis_health(client) == "up"


def is_down(client: Client) -> bool:
    return redis_health(client) == "down"


def forget_all_but_redis(resources: Resources) -> None:
    for entry in list(resources.store.entries()):
        resources.store.drop(entry)
    forget_the_host(resources)
