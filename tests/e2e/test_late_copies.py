"""Copies between device and host memory land late, as a GPU's do: nothing is read before, and nobody else waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from asking import answer, asking, leaks, prefilled_tokens, random_tokens
from eventually import eventually
from forgetting import forget_the_device
from late_copies import LateCopies
from running_service import RunningService, running
from tiny_models import save_tiny_model

from windowkv_client import Client, DeadlineExceeded

WINDOW = 8
DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)
DELAY_S = 0.15


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    model = save_tiny_model(tmp_path_factory.mktemp("model"), "llama")
    with running(model=str(model), window_size=WINDOW, chunk_tokens=64, device_tier_bytes=1 << 22) as worker:
        yield worker


@pytest.fixture
def client(worker: RunningService) -> Iterator[Client]:
    with asking(worker) as client:
        yield client


@pytest.fixture(scope="module")
def expected(worker: RunningService) -> list[int]:
    """What is answered when copies are made at once."""
    with asking(worker) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4, durability="host")
        said = answer(client, QUESTION, cache).token_ids
        client.caches.delete(cache.name)
    worker.ask(lambda resources: setattr(resources, "copies", LateCopies(DELAY_S)))
    return said


def test_a_cache_comes_back_when_its_blocks_have_landed(
    client: Client, worker: RunningService, expected: list[int]
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4, durability="host")
    prefilled = prefilled_tokens(worker)
    worker.ask(forget_the_device)
    said = answer(client, QUESTION, cache)
    assert said.token_ids == expected
    assert said.usage.source_tier == "host"
    assert prefilled_tokens(worker) == prefilled
    client.caches.delete(cache.name)


def test_what_has_not_landed_yet_is_waited_for(
    client: Client, worker: RunningService, expected: list[int]
) -> None:
    """The question's blocks are on their way down when it asks for them."""
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4)
    assert answer(client, QUESTION, cache).token_ids == expected
    client.caches.delete(cache.name)


def test_a_longer_prompt_goes_on_from_blocks_that_land(
    client: Client, worker: RunningService, expected: list[int]
) -> None:
    longer = [*DOCUMENT, *random_tokens(3, 30)]
    plain = client.caches.create(token_ids=longer, kept_ratio=1.0)
    before = answer(client, QUESTION, plain).token_ids
    client.caches.delete(plain.name)
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0, durability="host")
    worker.ask(forget_the_device)
    again = client.caches.create(token_ids=longer, kept_ratio=1.0)
    assert answer(client, QUESTION, again).token_ids == before
    for each in (cache, again):
        client.caches.delete(each.name)


def test_others_are_answered_while_blocks_land(
    client: Client, worker: RunningService, expected: list[int]
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4, durability="host")
    other = client.caches.create(token_ids=random_tokens(5, 60), kept_ratio=1.0, durability="host")
    answer(client, QUESTION, other)
    held = threading.Event()
    worker.ask(lambda resources: setattr(resources, "copies", _Stuck(held)))
    try:
        entry = worker.ask(lambda resources: resources.store.get("default", cache.name))
        worker.ask(lambda resources: resources.store.evict(entry))
        late: list[list[int]] = []
        asker = threading.Thread(target=lambda: late.append(_ask_by_itself(worker, cache.name)))
        asker.start()
        eventually(lambda: worker.resources.copies.num_stuck > 0)  # type: ignore[attr-defined]
        assert len(answer(client, QUESTION, other).token_ids) == 14
        assert late == []
    finally:
        held.set()
    asker.join()
    worker.ask(lambda resources: setattr(resources, "copies", LateCopies(DELAY_S)))
    assert late == [expected]
    for each in (cache, other):
        client.caches.delete(each.name)


def test_who_leaves_while_blocks_land_gives_them_back(
    client: Client, worker: RunningService, expected: list[int]
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4, durability="host")
    worker.ask(forget_the_device)
    with pytest.raises(DeadlineExceeded):
        answer(client, QUESTION, cache, timeout=DELAY_S / 3)
    eventually(lambda: worker.ask(leaks) == [])
    assert answer(client, QUESTION, cache).token_ids == expected
    client.caches.delete(cache.name)


class _Stuck(LateCopies):
    """Copies to the device land when they are let go."""

    def __init__(self, held: threading.Event) -> None:
        super().__init__(0.0)
        self._held = held
        self.num_stuck = 0

    def _into(self, *arguments: object) -> None:
        self.num_stuck += 1
        self._held.wait(20)
        super()._into(*arguments)  # type: ignore[arg-type]


def _ask_by_itself(worker: RunningService, name: str) -> list[int]:
    with asking(worker) as client:
        return answer(client, QUESTION, name).token_ids
