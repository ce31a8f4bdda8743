"""A cache of one document in Redis: where its bytes lie, and what is answered once they were touched."""

from __future__ import annotations

from typing import Any

from asking import Answered, answer, create_in_redis, metric, prefilled_tokens, random_tokens
from forgetting import forget_everything
from running_service import RunningService

from windowkv_client import Client
from windowkv_service.cache.entry import Entry
from windowkv_service.cache.tiers.redis.commands import KEY_PREFIX

DOCUMENT = random_tokens(1, 157)
OTHER_DOCUMENT = random_tokens(3, 60)
QUESTION = random_tokens(2, 9)


def entry_of(worker: RunningService, name: str) -> Entry:
    return worker.ask(lambda resources: resources.store.get("default", name))


def read_addresses(entry: Entry) -> list[bytes]:
    """Of blocks that every answer reads: of strips, where the cache keeps tokens, else of the first group's windows."""
    return [*entry.strip_addresses] or [entry.block_addresses[0][window] for window in entry.resident[0]]


def key(address: bytes) -> bytes:
    return KEY_PREFIX + address.hex().encode()


def corrupt_count(worker: RunningService, tier: str) -> float:
    return metric(worker, "windowkv_checksum_failures_total", tier=tier)


def create_and_ask(client: Client, **compression: Any) -> tuple[str, list[int]]:
    """A cache that Redis has acknowledged, and what it answers while all is well."""
    cache = create_in_redis(client, token_ids=DOCUMENT, **compression)
    return cache.name, answer(client, QUESTION, cache).token_ids


def ask_after_a_loss(client: Client, worker: RunningService, name: str) -> Answered:
    """Everything above Redis is empty."""
    worker.ask(forget_everything)
    return answer(client, QUESTION, name)


def check_mended(client: Client, worker: RunningService, name: str, expected: list[int]) -> None:
    """The next one who comes from below finds everything whole."""
    assert worker.resources.transfers.flush(10.0)
    failures, prefilled = corrupt_count(worker, "redis"), prefilled_tokens(worker)
    again = ask_after_a_loss(client, worker, name)
    assert again.token_ids == expected
    assert (again.usage.source_tier, again.usage.is_recomputed) == ("redis", False)
    assert (corrupt_count(worker, "redis"), prefilled_tokens(worker)) == (failures, prefilled)
