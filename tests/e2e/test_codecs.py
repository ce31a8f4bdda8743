"""Blocks that are quantized below the device: smaller there, always the same numbers, and never taken for others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from asking import answer, asking, create_in_redis, frame_keys, metric, prefilled_tokens, random_tokens
from forgetting import forget_all_but_the_books, forget_the_device
from kernel_cases.quantized import BlocksCase
from redis_server import RedisServer
from reference_generation import plain_generate
from rounded_generation import rounded_generate
from running_service import START, RunningService
from torch import Tensor

from windowkv.storage.v1.manifest_pb2 import Manifest
from windowkv_client import Cache, CacheNotFound, Client, Codec
from windowkv_service.cache.frame import HEADER_BYTES, Frame, FrameKind, pack
from windowkv_service.cache.manifest import write
from windowkv_service.cache.tiers.redis.commands import KEY_PREFIX
from windowkv_service.engine.resources import Resources

WINDOW = 8
DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)
LOSSY = [codec for codec in Codec if codec is not Codec.EXACT]
# Of float32 and in blocks of eight tokens and head_dim 16, scales included.
SHARES = {Codec.EXACT: 1.0, Codec.INT8: 0.3125, Codec.FP8: 0.3125, Codec.INT4: 0.25}


def numbers(worker: RunningService, cache: Cache) -> dict[tuple[int, int], Tensor]:
    """(group, window) → the block that the device holds of it, [γ, 2, ω, num_kv_heads, head_dim]."""

    def look(resources: Resources) -> dict[tuple[int, int], Tensor]:
        entry = resources.store.get("default", cache.name)
        assert entry.blocks is not None
        return {
            (group, window): resources.device.arenas.tensors[arena][block_id].clone()
            for group, row in enumerate(entry.resident)
            for window, (arena, block_id) in zip(row, entry.blocks[group], strict=True)
        }

    return worker.ask(look)


def first_logprobs(client: Client, cache: Cache) -> dict[int, float]:
    with client.generate(cache, token_ids=QUESTION, max_tokens=1, logprobs=20) as stream:
        return dict(pair for chunk in stream for each in chunk.logprobs for pair in each.top)


# Smaller, and near


@pytest.mark.parametrize("codec", Codec)
def test_redis_and_host_memory_hold_so_much_less(start: START, redis: RedisServer, codec: Codec) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=1.0, codec=codec)
        num_blocks = 4 * -(-len(DOCUMENT) // WINDOW)
        expected = SHARES[codec] * num_blocks * WINDOW * 1024 / 4
        assert cache.codec == codec
        assert client.caches.get(cache).bytes_by_tier["redis"] == expected
        assert client.caches.get(cache).bytes_by_tier["host"] == expected
        blocks = sorted(redis.client.strlen(key) for key in frame_keys(redis))[-num_blocks:]
        assert sum(blocks) == expected + num_blocks * HEADER_BYTES
        (host,) = (tier for tier in client.health().worker.tiers if tier.tier == "host")
        assert host.used_bytes == expected + num_blocks * HEADER_BYTES
        moved = metric(worker, "windowkv_tier_move_bytes_total", **{"from": "device", "to": "redis"})
        assert moved == expected + num_blocks * HEADER_BYTES
        worker.ask(forget_all_but_the_books)
        said = answer(client, QUESTION, cache)
        assert (said.usage.source_tier, said.usage.bytes_fetched) == ("redis", expected)


@pytest.mark.parametrize("codec", LOSSY)
def test_every_number_that_an_answer_reads_is_within_the_codecs_bound(start: START, codec: Codec) -> None:
    with start() as worker, asking(worker) as client:
        exact = client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0)
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0, codec=codec, durability="host")
        truth = numbers(worker, exact)
        worker.ask(forget_the_device)
        answer(client, QUESTION, cache)
        restored = numbers(worker, cache)
        assert restored.keys() == truth.keys()
        stated = BlocksCase(codec.value)  # type: ignore[arg-type]
        for place, block in truth.items():
            error = (restored[place] - block).abs()[None]
            assert bool((error <= stated.bound(block[None]) + 1e-6 * block.abs().max()).all())
            assert not torch.equal(restored[place], block)


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("document", [DOCUMENT, DOCUMENT[:152]], ids=["ragged", "whole windows"])
def test_answers_are_those_of_a_plain_model_whose_cache_was_rounded(
    start: START, model: Path, codec: Codec, document: list[int]
) -> None:
    expected = rounded_generate(model, document, QUESTION, 14, codec=codec.value, window_size=WINDOW)
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=document, kept_ratio=1.0, codec=codec)
        assert answer(client, QUESTION, cache).token_ids == expected
        worker.ask(forget_all_but_the_books)
        said = answer(client, QUESTION, cache)
        assert (said.token_ids, said.usage.source_tier, said.usage.is_recomputed) == (
            expected,
            "redis",
            False,
        )
    assert expected != plain_generate(model, document + QUESTION, 14) or codec is not Codec.INT4


@pytest.mark.parametrize(("codec", "tolerance"), [("int8", 0.1), ("fp8", 0.2), ("int4", 0.5)])
def test_answers_are_nearly_those_of_the_exact_cache(start: START, codec: str, tolerance: float) -> None:
    with start() as worker, asking(worker) as client:
        exact = client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0)
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0, codec=codec)
        said, meant = first_logprobs(client, cache), first_logprobs(client, exact)
        common = said.keys() & meant.keys()
        assert len(common) >= 15
        distance = sum(abs(said[token] - meant[token]) for token in common) / len(common)
        assert 0 < distance < tolerance


# Never taken for others


def test_exact_and_quantized_caches_of_one_document_never_mix(start: START) -> None:
    with start() as worker, asking(worker) as client:
        alone = {}
        for codec in Codec:
            cache = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.4, codec=codec)
            alone[codec] = answer(client, QUESTION, cache).token_ids
            client.caches.delete(cache)
        for order in (list(Codec), list(reversed(Codec))):
            caches = {
                codec: create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.4, codec=codec)
                for codec in order
            }
            assert len({cache.name for cache in caches.values()}) == len(Codec)
            for codec, cache in [*caches.items()] * 2:
                assert answer(client, QUESTION, cache).token_ids == alone[codec]
                worker.ask(forget_all_but_the_books)
            for cache in caches.values():
                client.caches.delete(cache)


@pytest.mark.parametrize("codec", LOSSY)
def test_dropping_one_leaves_the_other_whole(start: START, codec: Codec) -> None:
    with start() as worker, asking(worker) as client:
        exact = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.4)
        cache = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.4, codec=codec)
        expected = answer(client, QUESTION, cache).token_ids
        client.caches.delete(exact)
        worker.ask(forget_all_but_the_books)
        prefilled = prefilled_tokens(worker)
        said = answer(client, QUESTION, cache)
        assert (said.token_ids, said.usage.is_recomputed) == (expected, False)
        assert prefilled_tokens(worker) == prefilled


@pytest.mark.parametrize("codec", LOSSY)
def test_a_quantized_prefix_is_never_computed_upon(start: START, model: Path, codec: Codec) -> None:
    with start() as worker, asking(worker) as client:
        create_in_redis(client, token_ids=DOCUMENT, kept_ratio=1.0, codec=codec)
        longer = DOCUMENT + random_tokens(5, 20)
        for another in Codec:
            made = client.caches.create(token_ids=longer, kept_ratio=1.0, codec=another)
            assert made.creation is not None
            assert made.creation.reused_tokens == 0
            client.caches.delete(made)
        said = answer(client, longer)
        assert said.token_ids == plain_generate(model, longer, 14)
        assert (said.usage.cached_tokens, said.usage.miss_reason) == (0, "not_cached")


@pytest.mark.parametrize("codec", LOSSY)
def test_an_exact_prefix_serves_what_will_be_quantized(start: START, model: Path, codec: Codec) -> None:
    longer = DOCUMENT + random_tokens(5, 20)
    expected = rounded_generate(model, longer, QUESTION, 14, codec=codec.value, window_size=WINDOW)
    with start() as worker, asking(worker) as client:
        create_in_redis(client, token_ids=DOCUMENT, kept_ratio=1.0)
        worker.ask(forget_all_but_the_books)
        made = create_in_redis(client, token_ids=longer, kept_ratio=1.0, codec=codec)
        assert made.creation is not None
        assert made.creation.reused_tokens == 152
        assert answer(client, QUESTION, made).token_ids == expected


def test_a_cache_in_a_codec_of_another_version_is_not_found_and_left_alone(
    start: START, redis: RedisServer
) -> None:
    newer = "0" * 40
    with start() as worker, asking(worker) as client:
        known = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=1.0, codec="int8")
        frame = worker.ask(lambda resources: write(resources.store.get("default", known.name)))
        message = Manifest.FromString(bytes(frame.payload))
        message.cache_id, message.compression.codec = newer, "int3"
        address = worker.ask(lambda resources: resources.namespace("default").manifest(newer))
        raw = b"".join(pack(Frame.of(FrameKind.MANIFEST, address, message.SerializeToString())))
        redis.client.set(KEY_PREFIX + address.hex().encode(), raw)
        with pytest.raises(CacheNotFound):
            client.caches.get(f"caches/{newer}")
        assert redis.client.exists(KEY_PREFIX + address.hex().encode())
        assert [cache.name for cache in client.caches.list()] == [known.name]


# Where it is not said


def test_the_service_chooses_where_a_creation_does_not_say(start: START) -> None:
    with start(codec="int4") as worker, asking(worker) as client:
        assert client.models.get().default_codec is Codec.INT4
        unsaid, exact = (
            client.caches.create(token_ids=DOCUMENT, **said) for said in ({}, {"codec": "exact"})
        )
        assert (unsaid.codec, exact.codec) == ("int4", "exact")
        assert client.caches.create(token_ids=DOCUMENT, codec="int4").name == unsaid.name
    with start() as worker, asking(worker) as client:
        assert client.caches.create(token_ids=DOCUMENT).name == exact.name
