"""What answers say that the device holds for them is what its pools really hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from asking import answer, asking, random_tokens
from eventually import eventually
from running_service import RunningService, running
from seen_windows import seen_positions
from tiny_models import save_tiny_model

from windowkv_client import Cache, Client, Usage
from windowkv_service.engine.resources import Resources

WINDOW = 8
DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, WINDOW)
MAX_TOKENS = 2 * WINDOW  # the last one is never run: question and answer fill three tail blocks of a group


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture
def worker(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=WINDOW, device_tier_bytes=1 << 22) as service:
        yield service


def held_bytes(resources: Resources) -> int:
    """Blocks that somebody holds."""
    tensors = resources.device.arenas.tensors
    sizes = {arena: tensor[0].numel() * tensor.element_size() for arena, tensor in tensors.items()}
    return sum(pool.num_used * sizes[arena] for arena, pool in resources.device.pools.items())


def held_by_entry(worker: RunningService, cache: Cache) -> int:
    return cache.stored_bytes - cache.index_bytes


def ask_and_look(
    worker: RunningService, client: Client, cache: Cache, **options: object
) -> tuple[Usage, int]:
    """An answer's usage, and what the pools held in the middle of it."""
    options = {"max_tokens": MAX_TOKENS, "ignore_eos": True, **options}
    with client.generate(cache, token_ids=QUESTION, **options) as stream:  # type: ignore[arg-type]
        next(stream)
        held = worker.ask(held_bytes)
        for _ in stream:
            pass
    assert stream.usage is not None
    return stream.usage, held


@pytest.mark.parametrize("selection", ["question", "published", "full"])
def test_the_bytes_of_an_answer_are_those_that_the_pools_hold(worker: RunningService, selection: str) -> None:
    with asking(worker) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.5)
        assert worker.ask(held_bytes) == held_by_entry(worker, cache)
        usage, held = ask_and_look(worker, client, cache, selection=selection)
        assert held == usage.device_bytes - cache.index_bytes + usage.tail_bytes
        assert eventually(lambda: worker.ask(held_bytes) == held_by_entry(worker, cache))


@pytest.mark.parametrize("kept_ratio", [0.7, 0.5, 0.35])
def test_the_device_never_holds_more_than_the_kept_ratio(worker: RunningService, kept_ratio: float) -> None:
    with asking(worker) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=kept_ratio)
        assert cache.stored_bytes < 0.35 * cache.full_bytes
        usage, _ = ask_and_look(worker, client, cache)
        assert kept_ratio - 0.06 < usage.device_bytes / cache.full_bytes <= kept_ratio
        assert cache.stored_bytes <= usage.device_bytes


def test_between_questions_the_device_holds_leader_keys_and_the_windows_of_every_choice(
    worker: RunningService,
) -> None:
    with asking(worker) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.7)
        entry = worker.ask(lambda resources: resources.store.get("default", cache.name))
        last = (len(DOCUMENT) - 1) // WINDOW
        assert set(entry.resident) == {(0, last)}
        assert all(len(windows) > 2 for windows in entry.windows)
        block = worker.resources.model.layout.block_bytes(worker.resources.model.layout.groups[0])
        assert cache.stored_bytes == cache.index_bytes + 2 * len(entry.resident) * block
        with client.generate(cache, token_ids=QUESTION, max_tokens=300, ignore_eos=True) as stream:
            next(stream)
            seen = {position // WINDOW for position in seen_positions(worker)[0]}
        assert {0, last} < seen


def test_a_cache_that_forgets_what_it_did_not_choose_holds_what_it_chose(worker: RunningService) -> None:
    with asking(worker) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.5, retention="selected")
        assert 0.44 < cache.stored_ratio <= 0.5
        usage, held = ask_and_look(worker, client, cache)
        assert (usage.device_bytes, usage.blocks_fetched) == (cache.stored_bytes, 0)
        assert held == cache.stored_bytes + usage.tail_bytes


def test_questions_at_the_same_time_share_blocks(worker: RunningService) -> None:
    """The same question four times: the pools hold its windows once, and four tails."""
    with asking(worker) as client, ExitStack() as stack:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.5)
        usage, _ = ask_and_look(worker, client, cache)
        options = {"token_ids": QUESTION, "max_tokens": 200, "ignore_eos": True}
        streams = [stack.enter_context(client.generate(cache, **options)) for _ in range(4)]  # type: ignore[arg-type]
        for stream in streams:
            next(stream)
        tail_blocks = -(-(len(QUESTION) + 200) // WINDOW)
        layout = worker.resources.model.layout
        tail_bytes = tail_blocks * sum(map(layout.block_bytes, layout.groups))
        assert worker.ask(held_bytes) == usage.device_bytes - cache.index_bytes + 4 * tail_bytes


def test_leader_keys_do_not_grow_beyond_their_share(model: Path) -> None:
    """Entries hold hardly any blocks: without a bound of their own, indexes would fill the memory beside the pools."""
    room = 16 * WINDOW * 1024
    settings = {"model": str(model), "window_size": WINDOW, "device_tier_bytes": room}
    with running(**settings) as worker, asking(worker) as client:
        documents = [random_tokens(seed, 157) for seed in range(20)]
        caches = [client.caches.create(token_ids=ids, kept_ratio=0.3) for ids in documents]
        assert sum(cache.index_bytes for cache in caches) > room / 4
        shown = [client.caches.get(cache) for cache in caches]
        assert sum(cache.index_bytes for cache in shown) <= room / 4
        assert shown[-1].tier == "device"
        assert {cache.tier for cache in shown} == {"device", "host"}
        for cache in caches[:2]:
            assert answer(client, QUESTION, cache.name).usage.source_tier == "host"


def test_what_a_question_has_fetched_stays_for_the_next_one(worker: RunningService) -> None:
    with asking(worker) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.5)
        first, second = answer(client, QUESTION, cache), answer(client, QUESTION, cache)
        assert first.usage.blocks_fetched > 0
        assert (second.usage.blocks_fetched, second.usage.device_bytes) == (0, first.usage.device_bytes)
        assert second.token_ids == first.token_ids


def test_a_smaller_budget_of_a_question_counts_what_the_cache_holds(worker: RunningService) -> None:
    with asking(worker) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.7)
        usage, held = ask_and_look(worker, client, cache, kept_ratio=0.35)
        assert usage.device_bytes <= 0.35 * cache.full_bytes
        assert held == usage.device_bytes - cache.index_bytes + usage.tail_bytes
