"""Caches that keep tokens of each layer and KV head: they answer as a model that sees only those, and they hold no more
bytes than those fill."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asking import answer, asking, prefilled_tokens, random_tokens
from chosen_tokens import by_lot, offer
from reference_generation import masked_generate, plain_generate
from running_service import RunningService, running
from tiny_models import save_tiny_model

from windowkv_client import Client, InvalidRequest
from windowkv_service.engine.resources import Resources

WINDOW = 8
DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)
TOKENS: dict[str, Any] = {"kept_ratio": 0.4, "retention": "selected"}


@pytest.fixture(scope="module", params=["llama", "qwen2", "phi3", "gemma3", "gemma3n"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=WINDOW, chunk_tokens=64, device_tier_bytes=1 << 23) as worker:
        worker.ask(offer)
        yield worker


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    with asking(service) as client:
        yield client


@pytest.mark.parametrize("length", [1, 8, 157])
@pytest.mark.parametrize("num_new", [0, 1, 40])
def test_with_every_token_kept_the_answer_is_the_full_caches(
    client: Client, model: Path, length: int, num_new: int
) -> None:
    new = random_tokens(3, num_new)
    cache = client.caches.create(token_ids=DOCUMENT[:length], method="everything", **TOKENS)
    assert cache.kept_token_count == length
    assert answer(client, new, cache).token_ids == plain_generate(model, DOCUMENT[:length] + new, 14)


@pytest.mark.parametrize("retention", ["selected", "full"])
def test_each_head_sees_the_tokens_chosen_for_it_and_no_others(
    client: Client, service: RunningService, model: Path, retention: str
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, method="by_lot", kept_ratio=0.4, retention=retention)
    kept = service.ask(lambda resources: chosen_for(resources, len(DOCUMENT)))
    said = answer(client, QUESTION, cache)
    assert said.token_ids == masked_generate(model, DOCUMENT, QUESTION, kept, 14)
    assert said.usage.kept_tokens == cache.kept_token_count < 100
    assert said.usage.device_bytes == cache.stored_bytes


def chosen_for(resources: Resources, num_tokens: int) -> dict[int, list[list[int]]]:
    """Layer → per KV head, the positions it has. A sliding layer keeps all that a later token can see."""
    layout = resources.model.layout
    kept: dict[int, list[list[int]]] = {}
    for group in layout.groups:
        for layer in group.layers:
            kept[layer] = [
                by_lot(layer, head, num_tokens) if group.is_selectable else list(range(num_tokens))
                for head in range(layout.num_kv_heads)
            ]
    return {layer: kept[owner] for layer, owner in enumerate(layout.owners)}


def test_both_kinds_of_caches_answer_at_the_same_time_as_if_alone(
    client: Client, service: RunningService, model: Path
) -> None:
    kept = service.ask(lambda resources: chosen_for(resources, len(DOCUMENT)))
    split = client.caches.create(token_ids=DOCUMENT, method="by_lot", **TOKENS)
    whole = client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0)
    jobs = [(random_tokens(seed, 3 + 7 * seed), cache) for seed in range(3) for cache in (split, whole)]
    with ThreadPoolExecutor(len(jobs)) as pool:
        said = list(pool.map(lambda job: answer(client, *job).token_ids, jobs))
    for (new, cache), ids in zip(jobs, said, strict=True):
        if cache is whole:
            assert ids == plain_generate(model, DOCUMENT + new, 14)
        else:
            assert ids == masked_generate(model, DOCUMENT, new, kept, 14)


def test_its_bytes_are_those_of_the_blocks_that_it_holds(client: Client, service: RunningService) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, method="by_lot", **TOKENS)
    held, strips = service.ask(lambda resources: count_bytes(resources, cache.name))
    assert cache.stored_bytes == held
    blocks = service.ask(
        lambda resources: [resources.model.layout.block_bytes(g) for g in resources.model.layout.groups]
    )
    assert strips <= held < strips + sum(set(blocks))


def count_bytes(resources: Resources, name: str) -> tuple[int, int]:
    """What the entry's blocks take in the arenas, and what its strips and sliding windows alone would."""
    entry = resources.store.get("default", name)
    layout, arenas = resources.model.layout, resources.device.arenas.tensors
    held = sum(
        arenas[arena][block].numel() * arenas[arena].element_size() for arena, block in entry.placed_blocks
    )
    strips = (
        sum(-(-len(lane) // WINDOW) for lanes in entry.tokens.values() for lane in lanes) * layout.strip_bytes
    )
    for group in layout.groups:
        if group.index not in entry.tokens:
            strips += len(entry.windows[group.index]) * layout.block_bytes(group)
    return held, strips


def test_a_longer_prompt_reuses_what_full_retention_keeps_below(
    client: Client, service: RunningService, model: Path
) -> None:
    document = random_tokens(5, 128)
    client.caches.create(
        token_ids=document, method="by_lot", kept_ratio=0.4, retention="full", durability="host"
    )
    longer = document + random_tokens(6, 40)
    prefilled = prefilled_tokens(service)
    again = client.caches.create(token_ids=longer, kept_ratio=1.0)
    assert prefilled_tokens(service) - prefilled <= 40
    assert answer(client, QUESTION, again).token_ids == plain_generate(model, longer + QUESTION, 14)


@pytest.mark.parametrize("selection", ["question", "full"])
def test_no_question_chooses_again_where_tokens_were_chosen(client: Client, selection: str) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, method="by_lot", kept_ratio=0.4, retention="full")
    assert cache.index_bytes == 0
    with pytest.raises(InvalidRequest):
        answer(client, QUESTION, cache, selection=selection)


def test_a_deleted_one_leaves_nothing_on_the_device(client: Client, service: RunningService) -> None:
    used = service.ask(count_used)
    cache = client.caches.create(token_ids=random_tokens(8, 90), method="by_lot", **TOKENS)
    assert service.ask(count_used) > used
    client.caches.delete(cache)
    assert service.ask(count_used) == used


def count_used(resources: Resources) -> int:
    return sum(pool.num_used for pool in resources.device.pools.values())
