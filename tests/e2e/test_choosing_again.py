"""Long answers choose their windows again: what only a generated token can ask for is found, on the same budget."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asking import answer, asking
from chain_model import document, save_chain_model
from held_worker import holding_at
from reference_generation import plain_generate
from running_service import RunningService, running

from windowkv_client import Cache, Client
from windowkv_service.cache.block_pool import BlockPool
from windowkv_service.engine.resources import Resources

WINDOW = 8
CHAIN = list(range(10, 18))
DOCUMENT = document(CHAIN, num_tokens=400, seed=0)
QUESTION = [99, CHAIN[0]]
STEPS = CHAIN[1:]
SMALL = 0.08  # leader keys, and two windows of fifty


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chain_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def worker(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=WINDOW, device_tier_bytes=1 << 22) as service:
        yield service


@pytest.fixture
def client(worker: RunningService) -> Iterator[Client]:
    with asking(worker) as client:
        yield client


@pytest.fixture
def cache(client: Client) -> Cache:
    return client.caches.create(token_ids=DOCUMENT, kept_ratio=SMALL)


def walk(client: Client, cache: Any, **options: Any) -> Any:
    return answer(client, QUESTION, cache, **{"max_tokens": len(STEPS), **options})


def test_the_full_cache_walks_the_chain(model: Path) -> None:
    assert plain_generate(model, DOCUMENT + QUESTION, len(STEPS)) == STEPS


def test_a_step_that_the_question_could_not_know_of_is_found(client: Client, cache: Cache) -> None:
    once = walk(client, cache, reselect_every=0)
    assert once.token_ids[0] == STEPS[0]
    assert once.token_ids[1] != STEPS[1], "the first choice holds the second step: this test shows nothing"
    again = walk(client, cache, reselect_every=1)
    assert again.token_ids == STEPS
    assert (once.usage.selections, again.usage.selections) == (1, len(STEPS))
    assert again.usage.blocks_fetched > once.usage.blocks_fetched
    assert again.usage.device_bytes == once.usage.device_bytes <= SMALL * cache.full_bytes


@pytest.mark.parametrize(("every", "choices"), [(1, 7), (2, 4), (3, 3), (6, 2), (7, 1), (100, 1)])
def test_choices_are_made_after_every_so_many_tokens(
    client: Client, cache: Cache, every: int, choices: int
) -> None:
    assert walk(client, cache, reselect_every=every).usage.selections == choices


def test_the_fidelity_is_that_of_the_worst_choice(client: Client, cache: Cache) -> None:
    assert walk(client, cache, reselect_every=1).usage.fidelity > 0.99
    assert walk(client, cache, max_tokens=1).usage.fidelity > 0.99
    astray = walk(
        client, cache, reselect_every=3
    )  # it has said what nobody stated, and looks for what follows
    assert astray.usage.fidelity < 0.9


def test_without_a_choice_of_the_questions_there_is_none_to_repeat(client: Client, cache: Cache) -> None:
    for selection in ("full", "published"):
        assert walk(client, cache, selection=selection, reselect_every=1).usage.selections == 0
    assert walk(client, cache, selection="full", reselect_every=1).token_ids == STEPS
    assert answer(client, DOCUMENT + QUESTION, reselect_every=1, max_tokens=3).token_ids == STEPS[:3]


def test_between_two_choices_the_device_holds_no_more_than_one(
    worker: RunningService, client: Client, cache: Cache
) -> None:
    """Looked at wherever blocks are written that a choice lacked: the worst moment there is."""
    held: list[int] = []
    usage = walk(client, cache, reselect_every=1, max_tokens=2).usage
    tail_blocks = 2 * len(worker.resources.model.layout.groups)
    block = worker.resources.model.layout.block_bytes(worker.resources.model.layout.groups[0])

    def look(resources: Resources) -> None:
        pools = list(resources.device.pools.values())
        for pool in pools:
            pool.bind = partial(counted, pools, pool.bind)  # type: ignore[method-assign]

    def counted(pools: list[BlockPool], bind: Any, *arguments: Any) -> None:
        held.append(sum(pool.num_used for pool in pools) * block)
        bind(*arguments)

    worker.ask(look)
    walk(client, cache, reselect_every=1)
    assert len(held) >= len(STEPS)
    assert max(held) <= usage.device_bytes - cache.index_bytes + tail_blocks * block


def test_who_chooses_again_in_a_batch_says_what_it_says_alone(
    worker: RunningService, client: Client, cache: Cache
) -> None:
    jobs = [
        ([99, start], every, length) for start in CHAIN[:5] for every, length in ((1, 6), (2, 9), (0, 12))
    ]
    alone = [
        answer(client, ids, cache, reselect_every=every, max_tokens=n).token_ids for ids, every, n in jobs
    ]
    with holding_at(worker, "listen", call=1) as hold, ThreadPoolExecutor(len(jobs)) as pool:
        futures = [
            pool.submit(answer, client, ids, cache.name, reselect_every=every, max_tokens=n)
            for ids, every, n in jobs
        ]
        hold.wait_for_calls(len(jobs))
        hold.release()
        assert [future.result().token_ids for future in futures] == alone


def test_leaving_in_the_middle_gives_everything_back(client: Client, cache: Cache) -> None:
    for place in range(1, 6):
        with client.generate(cache, token_ids=QUESTION, max_tokens=300, reselect_every=1) as stream:
            for _ in range(place):
                next(stream)


def test_windows_that_are_lost_are_computed_again_in_the_middle_of_an_answer(
    worker: RunningService, client: Client, cache: Cache
) -> None:
    def lose(resources: Resources) -> None:
        entry = resources.store.get("default", cache.name)
        resources.tiers[0].drop(entry.addresses)

    worker.ask(lose)
    said = walk(client, cache, reselect_every=1)
    assert said.token_ids == STEPS
    assert said.usage.is_recomputed


def test_the_models_profile_says_how_often_unless_the_request_does(model: Path, tmp_path: Path) -> None:
    profile = json.loads((model / "windowkv_profile.json").read_text())
    save_chain_model(tmp_path)
    (tmp_path / "windowkv_profile.json").write_text(json.dumps(profile | {"reselect_every": 1}))
    settings = {"model": str(tmp_path), "window_size": WINDOW, "device_tier_bytes": 1 << 22}
    with running(**settings) as service, asking(service) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=SMALL)
        assert walk(client, cache).token_ids == STEPS
        assert walk(client, cache, reselect_every=0).usage.selections == 1
