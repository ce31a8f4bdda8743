"""PyramidInfer in the worker: what a layer drops reaches no layer after it, and what is kept answers as a model does in
which no layer sees what the layers before it dropped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asking import answer, asking, prefilled_tokens, random_tokens
from reference_generation import masked_generate, plain_generate
from running_service import RunningService, running
from tiny_models import save_tiny_model
from torch import nn

from windowkv_client import Client
from windowkv_service.engine.resources import Resources

DOCUMENT = random_tokens(1, 203)
QUESTION = random_tokens(2, 9)


@pytest.fixture(scope="module", params=["llama", "phi3", "gemma3", "gemma3n"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=4, chunk_tokens=64, device_tier_bytes=1 << 23) as worker:
        yield worker


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    with asking(service) as client:
        yield client


@contextmanager
def counted(service: RunningService) -> Iterator[Mapping[int, list[int]]]:
    """Layer → how many tokens each call brought to its projection of keys, or of queries where it has no keys."""
    seen: dict[int, list[int]] = defaultdict(list)

    def listen(layer: int, module: nn.Module) -> Any:
        return module.register_forward_pre_hook(lambda _, args: seen[layer].append(args[0].shape[-2]))

    def hook(resources: Resources) -> list[Any]:
        hooks = []
        for layer, block in enumerate(resources.model.module.get_decoder().layers):
            attention = block.self_attn
            names = ("k_proj", "qkv_proj", "q_proj")
            hooks.append(listen(layer, next(getattr(attention, n) for n in names if hasattr(attention, n))))
        return hooks

    hooks = service.ask(hook)
    yield seen
    for each in hooks:
        each.remove()


def chosen_tokens(resources: Resources, name: str) -> dict[int, list[int]]:
    """Layer that chooses → which tokens each of its heads keeps."""
    entry, layout = resources.store.get("default", name), resources.model.layout
    chosen = {}
    for group in layout.selectable_groups:
        lanes = entry.tokens[group.index]
        for place, layer in enumerate(group.layers):
            mine = lanes[place * layout.num_kv_heads : (place + 1) * layout.num_kv_heads]
            assert all(lane == mine[0] for lane in mine)
            chosen[layer] = list(mine[0])
    return chosen


def test_deeper_layers_compute_only_what_the_layers_before_them_kept(
    client: Client, service: RunningService
) -> None:
    with counted(service) as seen:
        cache = client.caches.create(token_ids=DOCUMENT, method="pyramidinfer", kept_ratio=0.4)
    kept = service.ask(lambda resources: chosen_tokens(resources, cache.name))
    counts, left = [], len(DOCUMENT)
    for layer in sorted(seen):
        assert seen[layer] == [left]
        left = len(kept.get(layer, range(left)))
        counts.append(left)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < len(DOCUMENT)


@pytest.mark.parametrize("ratio", [0.2, 0.4, 0.7])
def test_what_it_stores_is_within_the_budget_and_as_counted(
    client: Client, service: RunningService, ratio: float
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, method="pyramidinfer", kept_ratio=ratio)
    held = service.ask(lambda resources: held_bytes(resources, cache.name))
    assert cache.stored_bytes == held <= max(ratio * cache.full_bytes, least_bytes(service))


def held_bytes(resources: Resources, name: str) -> int:
    arenas = resources.device.arenas.tensors
    entry = resources.store.get("default", name)
    return sum(
        arenas[arena][block].numel() * arenas[arena].element_size() for arena, block in entry.placed_blocks
    )


def least_bytes(service: RunningService) -> int:
    """One block of every group, and what sliding layers see."""
    layout = service.resources.model.layout
    return sum(
        layout.block_bytes(group)
        * (1 if group.is_selectable else len(layout.full_windows(group, len(DOCUMENT))))
        for group in layout.groups
    )


def test_the_answer_is_that_of_a_model_whose_layers_see_only_what_reached_them(
    client: Client, service: RunningService, model: Path
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, method="pyramidinfer", kept_ratio=0.3)
    chosen = service.ask(lambda resources: chosen_tokens(resources, cache.name))
    owners = service.ask(lambda resources: resources.model.layout.owners)
    kept: dict[int, Sequence[int]] = {}
    reached: dict[int, Sequence[int]] = {}
    left: Sequence[int] = range(len(DOCUMENT))
    for layer, owner in enumerate(owners):
        reached[layer] = left
        left = chosen.get(layer, left)
        kept[layer] = left if owner == layer else kept[owner]
    said = answer(client, QUESTION, cache)
    assert said.token_ids == masked_generate(model, DOCUMENT, QUESTION, kept, 14, reached)
    assert said.usage.kept_tokens == cache.kept_token_count < 0.6 * len(DOCUMENT)
    assert 0.0 < cache.fidelity < 1.0


def test_with_nothing_to_drop_the_answer_is_the_full_caches(client: Client, model: Path) -> None:
    """A prompt of one block: each layer keeps a block at least."""
    cache = client.caches.create(token_ids=DOCUMENT[:3], method="pyramidinfer", kept_ratio=0.9)
    assert answer(client, QUESTION, cache).token_ids == plain_generate(model, DOCUMENT[:3] + QUESTION, 14)


def test_nobody_reuses_it_as_a_prefix_whatever_its_retention(
    client: Client, service: RunningService, model: Path
) -> None:
    document = random_tokens(7, 160)
    client.caches.create(
        token_ids=document, method="pyramidinfer", kept_ratio=0.4, retention="full", durability="host"
    )
    before = prefilled_tokens(service)
    longer: Sequence[int] = document + random_tokens(8, 30)
    again = client.caches.create(token_ids=longer, kept_ratio=1.0)
    assert prefilled_tokens(service) - before == len(longer)
    assert answer(client, QUESTION, again).token_ids == plain_generate(model, [*longer, *QUESTION], 14)


def test_what_was_lost_is_made_again_by_dropping_the_same(client: Client, service: RunningService) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, method="pyramidinfer", kept_ratio=0.3, durability="host")
    before = answer(client, QUESTION, cache)
    service.ask(lambda resources: lose(resources, cache.name))
    after = answer(client, QUESTION, cache)
    assert after.usage.is_recomputed
    assert after.token_ids == before.token_ids


def lose(resources: Resources, name: str) -> None:
    """Its bytes are nowhere any more; the books keep the record."""
    entry = resources.store.get("default", name)
    resources.store.evict(entry)
    for pool in resources.device.pools.values():
        for address in entry.addresses:
            pool.forget(address)
    resources.tiers[0].drop(entry.addresses)
