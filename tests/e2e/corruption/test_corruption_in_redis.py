"""Whatever is wrong with values in Redis, the answer is right: recomputed where it must be, and mended below."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import answer, create_in_redis, random_tokens
from cache_kinds import cache_kinds
from damages import DAMAGES, flip, retype
from forgetting import forget_everything
from redis_server import RedisServer
from reference_generation import plain_generate
from running_service import RunningService
from stored_caches import (
    DOCUMENT,
    OTHER_DOCUMENT,
    QUESTION,
    ask_after_a_loss,
    check_mended,
    corrupt_count,
    create_and_ask,
    entry_of,
    key,
    read_addresses,
)

from windowkv_client import CacheNotFound, Client
from windowkv_service.cache.frame import HEADER_BYTES, Frame, FrameKind, pack

KINDS = cache_kinds("snapkv")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_block_is_computed_again(
    client: Client, worker: RunningService, redis: RedisServer, kind: str, damage: str
) -> None:
    name, expected = create_and_ask(client, **KINDS[kind])
    entry, failures = entry_of(worker, name), corrupt_count(worker, "redis")
    DAMAGES[damage](redis, key(read_addresses(entry)[0]))
    said = ask_after_a_loss(client, worker, name)
    assert said.token_ids == expected
    assert (said.usage.is_recomputed, said.usage.miss_reason) == (True, "corrupt")
    assert corrupt_count(worker, "redis") == failures + 1
    check_mended(client, worker, name, expected)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_piece_is_computed_again(
    client: Client, worker: RunningService, redis: RedisServer, damage: str
) -> None:
    name, expected = create_and_ask(client, kept_ratio=0.4)
    failures = corrupt_count(worker, "redis")
    DAMAGES[damage](redis, key(entry_of(worker, name).index_addresses[0]))
    said = ask_after_a_loss(client, worker, name)
    assert said.token_ids == expected
    assert (said.usage.is_recomputed, said.usage.miss_reason) == (True, "corrupt")
    assert corrupt_count(worker, "redis") == failures + 1
    check_mended(client, worker, name, expected)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_not_found_and_made_again(
    client: Client, worker: RunningService, redis: RedisServer, damage: str
) -> None:
    name, expected = create_and_ask(client, kept_ratio=0.4)
    failures = corrupt_count(worker, "redis")
    DAMAGES[damage](redis, key(entry_of(worker, name).manifest_address))
    worker.ask(forget_everything)
    with pytest.raises(CacheNotFound):
        answer(client, QUESTION, name)
    assert corrupt_count(worker, "redis") == failures + 1
    assert list(client.caches.list()) == []
    again = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4)
    assert again.creation is not None
    assert (again.name, again.creation.is_hit) == (name, False)
    assert answer(client, QUESTION, again).token_ids == expected
    check_mended(client, worker, name, expected)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_alias_leads_nowhere(
    client: Client, worker: RunningService, redis: RedisServer, damage: str
) -> None:
    cache = create_in_redis(client, token_ids=OTHER_DOCUMENT, alias="latest")
    address = worker.ask(lambda resources: resources.namespace("default").alias("latest"))
    assert worker.resources.transfers.flush(10.0)
    failures = corrupt_count(worker, "redis")
    DAMAGES[damage](redis, key(address))
    assert client.caches.get("aliases/latest").name == cache.name, "what is known here still serves"
    assert corrupt_count(worker, "redis") == failures + 1
    worker.ask(forget_everything)
    with pytest.raises(CacheNotFound):
        client.caches.get("aliases/latest")


def test_a_whole_manifest_of_nonsense_is_not_found(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, _ = create_and_ask(client, kept_ratio=0.4)
    address = entry_of(worker, name).manifest_address
    raw = b"".join(pack(Frame.of(FrameKind.MANIFEST, address, b"\x08\x96\x01 no such message")))
    redis.client.set(key(address), raw)
    worker.ask(forget_everything)
    with pytest.raises(CacheNotFound):
        client.caches.get(name)


def test_a_value_of_another_type_is_no_obstacle(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, expected = create_and_ask(client, kept_ratio=1.0)
    retype(redis, key(entry_of(worker, name).block_addresses[0][0]))
    said = ask_after_a_loss(client, worker, name)
    assert (said.token_ids, said.usage.is_recomputed) == (expected, True)


def test_every_value_damaged_at_once_is_still_the_right_answer(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, expected = create_and_ask(client, kept_ratio=0.4)
    for number, address in enumerate(entry_of(worker, name).addresses):
        flip(8 * HEADER_BYTES + 37 * number)(redis, key(address))
    said = ask_after_a_loss(client, worker, name)
    assert (said.token_ids, said.usage.is_recomputed) == (expected, True)
    while said.usage.is_recomputed:  # what nobody has read is not known to be wrong
        assert worker.resources.transfers.flush(10.0)
        failures = corrupt_count(worker, "redis")
        said = ask_after_a_loss(client, worker, name)
        assert said.token_ids == expected
        assert said.usage.is_recomputed == (corrupt_count(worker, "redis") > failures)


def test_a_prefix_is_reused_up_to_the_damaged_block(
    client: Client, worker: RunningService, redis: RedisServer, model: Path
) -> None:
    name, _ = create_and_ask(client, kept_ratio=1.0)
    flip(-1)(redis, key(entry_of(worker, name).block_addresses[2][10]))
    worker.ask(forget_everything)
    longer = DOCUMENT + random_tokens(5, 20)
    said = answer(client, longer)
    assert said.token_ids == plain_generate(model, longer, 14)
    assert said.usage.cached_tokens == 80
