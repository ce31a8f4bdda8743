"""How the end-to-end tests talk to a worker, and what must hold of its books once nobody talks to it any more."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from eventually import eventually
from redis_server import RedisServer
from running_service import RunningService

from windowkv_client import Cache, Client, TierDown, Usage
from windowkv_service.cache.tiers.redis.commands import KEY_PREFIX
from windowkv_service.engine.resources import Resources


@dataclass(frozen=True)
class Answered:
    token_ids: list[int]
    text: str
    finish_reason: str | None
    usage: Usage


def random_tokens(seed: int, length: int) -> list[int]:
    """Tokens that stand for bytes; the tiny models' special tokens are not among them."""
    draw = random.Random(seed)
    return [draw.randrange(256) for _ in range(length)]


def answer(client: Client, token_ids: Sequence[int], cache: Any = None, **options: Any) -> Answered:
    """The whole answer to token ids, by default greedy and of 14 tokens, whatever they are."""
    options = {"max_tokens": 14, "ignore_eos": True, **options}
    with client.generate(cache, token_ids=list(token_ids), **options) as stream:
        for _ in stream:
            pass
    assert stream.usage is not None
    return Answered(list(stream.token_ids), stream.text, stream.finish_reason, stream.usage)


def create_in_redis(client: Client, **options: Any) -> Cache:
    """A cache that Redis has acknowledged; on a busy machine that may take more than one attempt."""
    for _ in range(5):
        with suppress(TierDown):
            return client.caches.create(**options, durability="redis")
    return client.caches.create(**options, durability="redis")


def metric(service: RunningService, name: str, **labels: str) -> float:
    value = service.service.metrics.registry.get_sample_value(name, labels)
    assert value is not None, f"there is no {name} {labels}"
    return value


def prefilled_tokens(service: RunningService) -> float:
    """Prompt tokens that the model has run since the worker started."""
    return metric(service, "windowkv_tokens_per_step_sum", phase="prefill")


def frame_keys(redis: RedisServer) -> list[bytes]:
    """Keys of blocks, index pieces and manifests, without the listings."""
    return [key for key in redis.all_keys() if not key.startswith(KEY_PREFIX + b"list:")]


def leaks(resources: Resources) -> list[str]:
    """What is held although no request runs: every used block must be an entry's, as often as entries hold it."""
    held = Counter(placed for entry in resources.store.entries() for placed in entry.placed_blocks)
    found = [f"{resources.num_answering} answers are counted"] if resources.num_answering else []
    if resources.staging is not None:
        found.append("staging is held")
    found += [f"{entry.name} has pins" for entry in resources.store.entries() if entry.pins]
    for arena, pool in resources.device.pools.items():
        for block_id in range(pool.num_blocks):
            if pool.references(block_id) != held[arena, block_id]:
                counts = f"{pool.references(block_id)} references, entries hold {held[arena, block_id]}"
                found.append(f"block {block_id}: {counts}")
    return found


def is_idle(service: RunningService) -> bool:
    status = service.service.engine.status()
    return status.num_running == 0 and status.num_waiting == 0 and not service.service.engine._replies


def check_books(service: RunningService) -> None:
    """Once all requests have ended: the books agree with themselves and nothing is held for nobody."""
    assert eventually(lambda: is_idle(service)), "requests that never end"
    service.check_integrity()
    assert service.ask(leaks) == []


@contextmanager
def asking(service: RunningService) -> Iterator[Client]:
    """A client; in the end the worker's books are in order."""
    with Client(service.target) as client:
        yield client
    check_books(service)
