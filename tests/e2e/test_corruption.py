"""Whatever is wrong with stored bytes, the answer is right: recomputed where it must be, and mended below."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import Answered, answer, asking, create_in_redis, metric, prefilled_tokens, random_tokens
from redis_server import RedisServer
from redis_server import running as running_redis
from reference_generation import plain_generate
from running_service import RunningService, running
from tiny_models import save_tiny_model

from windowkv_client import CacheNotFound, Client
from windowkv_service.cache.entry import Entry
from windowkv_service.cache.frame import HEADER_BYTES, Frame, FrameKind, pack
from windowkv_service.cache.tiers.host import HostTier
from windowkv_service.cache.tiers.redis.commands import KEY_PREFIX
from windowkv_service.engine.resources import Resources

DOCUMENT = random_tokens(1, 157)
OTHER_DOCUMENT = random_tokens(3, 60)
QUESTION = random_tokens(2, 9)
KINDS: dict[str, dict[str, Any]] = {
    "uncompressed": {"kept_ratio": 1.0},
    "chosen-by-the-question": {"kept_ratio": 0.4},
    "as-published": {"kept_ratio": 0.4, "retention": "selected"},
    "tokens-of-each-head": {"kept_ratio": 0.4, "method": "snapkv"},
    "tokens-dropped-on-the-way": {"kept_ratio": 0.4, "method": "pyramidinfer"},
    "quantized-below": {"kept_ratio": 0.4, "codec": "int4"},
    "quantized-tokens-of-each-head": {"kept_ratio": 0.4, "method": "snapkv", "codec": "int8"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(scope="module")
def worker(model: Path, redis: RedisServer) -> Iterator[RunningService]:
    with running(model=str(model), window_size=8, device_tier_bytes=1 << 22, redis_url=redis.url) as service:
        yield service


@pytest.fixture
def client(worker: RunningService, redis: RedisServer) -> Iterator[Client]:
    redis.flush()
    worker.ask(forget_everything)
    with asking(worker) as client:
        yield client


def forget_everything(resources: Resources) -> None:
    """All but Redis is as after a restart."""
    forget_the_device(resources)
    for entry in list(resources.store.entries()):
        resources.store.drop(entry)
    host = resources.tiers[0]
    assert isinstance(host, HostTier)
    host.clear()


def forget_the_device(resources: Resources) -> None:
    for entry in resources.store.entries():
        resources.store.evict(entry)
        for pool in resources.device.pools.values():
            for address in entry.addresses:
                pool.forget(address)


def entry_of(worker: RunningService, name: str) -> Entry:
    return worker.ask(lambda resources: resources.store.get("default", name))


def read_addresses(entry: Entry) -> list[bytes]:
    """Of blocks that every answer reads: of strips, where the cache keeps tokens, else of the first group's windows."""
    return [*entry.strip_addresses] or [entry.block_addresses[0][window] for window in entry.resident[0]]


def key(address: bytes) -> bytes:
    return KEY_PREFIX + address.hex().encode()


def corrupt_count(worker: RunningService, tier: str) -> float:
    return metric(worker, "windowkv_checksum_failures_total", tier=tier)


# What can happen to a value in Redis


def flip(bit: int) -> Callable[[RedisServer, bytes], None]:
    """A negative bit counts from the value's end."""

    def damage(redis: RedisServer, value: bytes) -> None:
        redis.flip_bit(value, bit % (8 * redis.client.strlen(value)))

    return damage


def cut(size: int) -> Callable[[RedisServer, bytes], None]:
    def damage(redis: RedisServer, value: bytes) -> None:
        redis.truncate(value, size % redis.client.strlen(value))

    return damage


def replace(redis: RedisServer, value: bytes) -> None:
    redis.client.set(value, b"something else", keepttl=True)


def retype(redis: RedisServer, value: bytes) -> None:
    redis.client.delete(value)
    redis.client.rpush(value, b"a list")


def lengthen(redis: RedisServer, value: bytes) -> None:
    redis.client.append(value, b"\0")


DAMAGES: dict[str, Callable[[RedisServer, bytes], None]] = {
    "a bit of the magic": flip(3),
    "a bit of the address": flip(8 * 40),
    "a bit of the checksum": flip(8 * (HEADER_BYTES - 1)),
    "the first payload bit": flip(8 * HEADER_BYTES),
    "the last bit": flip(-1),
    "cut to nothing": cut(0),
    "cut within the header": cut(HEADER_BYTES - 1),
    "cut to the header": cut(HEADER_BYTES),
    "its last byte missing": cut(-1),
    "a byte too many": lengthen,
    "other bytes": replace,
}


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


@pytest.mark.parametrize("kind", KINDS)
def test_two_swapped_blocks_are_both_found_out(
    client: Client, worker: RunningService, redis: RedisServer, kind: str
) -> None:
    name, expected = create_and_ask(client, **KINDS[kind])
    entry, failures = entry_of(worker, name), corrupt_count(worker, "redis")
    addresses = read_addresses(entry)
    redis.swap(key(addresses[0]), key(addresses[-1]))
    said = ask_after_a_loss(client, worker, name)
    assert said.token_ids == expected
    assert said.usage.is_recomputed
    assert corrupt_count(worker, "redis") == failures + 2
    check_mended(client, worker, name, expected)


def test_blocks_of_another_layer_group_are_found_out(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, expected = create_and_ask(client, kept_ratio=1.0)
    groups = entry_of(worker, name).block_addresses
    redis.swap(key(groups[0][5]), key(groups[1][5]))
    said = ask_after_a_loss(client, worker, name)
    assert (said.token_ids, said.usage.is_recomputed) == (expected, True)


def test_a_block_in_the_place_of_an_index_piece_is_found_out(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, expected = create_and_ask(client, kept_ratio=0.4)
    entry = entry_of(worker, name)
    redis.swap(key(entry.block_addresses[0][0]), key(entry.index_addresses[0]))
    said = ask_after_a_loss(client, worker, name)
    assert (said.token_ids, said.usage.is_recomputed) == (expected, True)


def test_swapped_manifests_are_both_not_found(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, _ = create_and_ask(client, kept_ratio=0.4)
    other = create_in_redis(client, token_ids=OTHER_DOCUMENT).name
    redis.swap(*(key(entry_of(worker, each).manifest_address) for each in (name, other)))
    worker.ask(forget_everything)
    for each in (name, other):
        with pytest.raises(CacheNotFound):
            client.caches.get(each)


def test_a_value_of_another_type_is_no_obstacle(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, expected = create_and_ask(client, kept_ratio=1.0)
    retype(redis, key(entry_of(worker, name).block_addresses[0][0]))
    said = ask_after_a_loss(client, worker, name)
    assert (said.token_ids, said.usage.is_recomputed) == (expected, True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", ["every third", "all"])
def test_lost_blocks_are_computed_again(
    client: Client, worker: RunningService, redis: RedisServer, kind: str, share: str
) -> None:
    name, expected = create_and_ask(client, **KINDS[kind])
    lost = entry_of(worker, name).addresses[:: 3 if share == "every third" else 1]
    redis.client.delete(*map(key, lost))
    failures = corrupt_count(worker, "redis")
    said = ask_after_a_loss(client, worker, name)
    assert said.token_ids == expected
    assert (said.usage.is_recomputed, said.usage.miss_reason) == (True, "evicted")
    assert corrupt_count(worker, "redis") == failures
    check_mended(client, worker, name, expected)


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


def test_an_emptied_redis_is_a_cache_not_found_and_a_fresh_one_when_created_again(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, expected = create_and_ask(client, kept_ratio=0.4)
    redis.flush()
    worker.ask(forget_everything)
    with pytest.raises(CacheNotFound):
        answer(client, QUESTION, name)
    again = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.4)
    assert answer(client, QUESTION, again).token_ids == expected
    check_mended(client, worker, name, expected)


def test_an_emptied_redis_is_filled_again_by_what_is_computed_again(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, expected = create_and_ask(client, kept_ratio=0.4)
    redis.flush()
    worker.ask(forget_the_device)
    host = worker.resources.tiers[0]
    assert isinstance(host, HostTier)
    host.clear()
    said = answer(client, QUESTION, name)
    assert (said.token_ids, said.usage.is_recomputed) == (expected, True)
    check_mended(client, worker, name, expected)


# Host memory


def poke(worker: RunningService, address: bytes, place: int) -> None:
    host = worker.resources.tiers[0]
    assert isinstance(host, HostTier)
    raw = host.raw(address)
    assert raw is not None
    raw[place] ^= 0x10


@pytest.mark.parametrize("place", [0, 30, HEADER_BYTES - 1, HEADER_BYTES, -1])
def test_a_bit_that_fell_over_in_host_memory_is_fetched_from_redis(
    client: Client, worker: RunningService, place: int
) -> None:
    name, expected = create_and_ask(client, kept_ratio=0.4)
    entry, failures = entry_of(worker, name), corrupt_count(worker, "host")
    poke(worker, entry.block_addresses[0][0], place)
    poke(worker, entry.index_addresses[0], place)
    worker.ask(forget_the_device)
    prefilled = prefilled_tokens(worker)
    said = answer(client, QUESTION, name)
    assert said.token_ids == expected
    assert (said.usage.source_tier, said.usage.is_recomputed) == ("redis", False)
    assert corrupt_count(worker, "host") == failures + 2
    assert prefilled_tokens(worker) == prefilled


@pytest.mark.parametrize("kind", KINDS)
def test_damage_in_host_memory_without_redis_is_computed_again(
    client: Client, worker: RunningService, redis: RedisServer, kind: str
) -> None:
    name, expected = create_and_ask(client, **KINDS[kind])
    for address in entry_of(worker, name).addresses:
        poke(worker, address, -1)
    redis.flush()
    worker.ask(forget_the_device)
    said = answer(client, QUESTION, name)
    assert said.token_ids == expected
    assert (said.usage.is_recomputed, said.usage.miss_reason) == (True, "corrupt")
    check_mended(client, worker, name, expected)


def test_swapped_blocks_in_host_memory_are_found_out(client: Client, worker: RunningService) -> None:
    name, expected = create_and_ask(client, kept_ratio=1.0)
    entry, host = entry_of(worker, name), worker.resources.tiers[0]
    assert isinstance(host, HostTier)
    one, other = host.raw(entry.block_addresses[0][2]), host.raw(entry.block_addresses[0][3])
    assert one is not None
    assert other is not None
    one[:], other[:] = bytes(other), bytes(one)
    failures = corrupt_count(worker, "host")
    worker.ask(forget_the_device)
    assert answer(client, QUESTION, name).token_ids == expected
    assert corrupt_count(worker, "host") == failures + 2
