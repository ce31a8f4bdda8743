"""Blocks come up in parts, some while others are still being verified: what is answered is the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from asking import answer, asking, leaks, prefilled_tokens, random_tokens
from eventually import eventually
from forgetting import forget_the_device
from late_copies import LateCopies
from running_service import RunningService, running
from tiny_models import save_tiny_model
from torch import Tensor

from windowkv_client import Client, DeadlineExceeded
from windowkv_service.engine import fetch, reuse
from windowkv_service.kv.copies import Landing

WINDOW = 8
DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)
DELAY_S = 0.02


class CountingCopies(LateCopies):
    """num_into: how often something was sent to the device; most: blocks that were on their way at once."""

    def __init__(self) -> None:
        super().__init__(DELAY_S)
        self.num_into = 0
        self.most = 0
        self._sent: list[tuple[Landing, int]] = []

    def into(self, sources: Sequence[memoryview], targets: Sequence[Tensor]) -> Landing:
        landing = super().into(sources, targets)
        self.num_into += 1
        self._sent = [(each, count) for each, count in self._sent if not each.is_done()]
        self._sent.append((landing, len(targets)))
        self.most = max(self.most, sum(count for _, count in self._sent))
        return landing


@pytest.fixture
def worker(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningService]:
    monkeypatch.setattr(fetch, "PART", 5)
    monkeypatch.setattr(reuse, "PIECE_BYTES", 1)  # one window at once
    model = save_tiny_model(tmp_path_factory.mktemp("model"), "llama")
    with running(model=str(model), window_size=WINDOW, chunk_tokens=64, device_tier_bytes=1 << 22) as worker:
        worker.resources.copies = CountingCopies()
        yield worker


@pytest.fixture
def client(worker: RunningService) -> Iterator[Client]:
    with asking(worker) as client:
        yield client


def copies(worker: RunningService) -> CountingCopies:
    made = worker.resources.copies
    assert isinstance(made, CountingCopies)
    return made


def test_a_cache_comes_back(client: Client, worker: RunningService) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0, durability="host")
    expected = answer(client, QUESTION, cache)
    prefilled, before = prefilled_tokens(worker), copies(worker).num_into
    worker.ask(forget_the_device)
    said = answer(client, QUESTION, cache)
    assert said.token_ids == expected.token_ids
    assert prefilled_tokens(worker) == prefilled
    assert copies(worker).num_into - before >= said.usage.blocks_fetched / 5
    assert said.usage.source_tier == "host"


def test_a_block_that_is_lost_in_the_middle_is_computed_again(client: Client, worker: RunningService) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0, durability="host")
    expected = answer(client, QUESTION, cache).token_ids
    worker.ask(forget_the_device)
    host = worker.resources.tiers[0]
    entry = worker.ask(lambda resources: resources.store.get("default", cache.name))
    host.drop([entry.block_addresses[1][9]])
    said = answer(client, QUESTION, cache)
    assert said.token_ids == expected
    assert said.usage.is_recomputed


def test_a_prefix_comes_back_a_few_blocks_at_once(client: Client, worker: RunningService) -> None:
    """Some of it is on the device still."""
    longer = [*DOCUMENT, *random_tokens(3, 60)]
    plain = client.caches.create(token_ids=longer, kept_ratio=1.0)
    expected = answer(client, QUESTION, plain).token_ids
    client.caches.delete(plain.name)
    client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0, durability="host")
    worker.ask(forget_the_device)
    client.caches.create(token_ids=DOCUMENT[:70], kept_ratio=1.0)
    copies(worker).most = 0
    prefilled = prefilled_tokens(worker)
    again = client.caches.create(token_ids=longer, kept_ratio=1.0)
    assert prefilled_tokens(worker) - prefilled < 80, "the document was not computed again"
    assert copies(worker).most == reuse.MAX_PIECES
    assert answer(client, QUESTION, again).token_ids == expected


@pytest.mark.parametrize("parts", [1, 4])
def test_who_leaves_in_between_gives_all_back(client: Client, worker: RunningService, parts: int) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0, durability="host")
    expected = answer(client, QUESTION, cache).token_ids
    worker.ask(forget_the_device)
    with pytest.raises(DeadlineExceeded):
        answer(client, QUESTION, cache, timeout=DELAY_S * parts)
    eventually(lambda: worker.ask(leaks) == [])
    assert answer(client, QUESTION, cache).token_ids == expected
