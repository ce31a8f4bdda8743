"""Everything at once: questions, evictions and a Redis that suffers. Whatever is answered is right."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from asking import answer, asking, check_books, frame_keys, prefilled_tokens, random_tokens
from forgetting import forget_the_host
from redis_server import RedisServer
from running_service import RunningService, running

from windowkv_client import CacheFull, CacheNotFound, Client, RetryPolicy, TierDown
from windowkv_service.engine.resources import Resources

NUM_DOCUMENTS = 6
NUM_ASKERS = 4
NUM_QUESTIONS = 25  # per asker
KINDS = [
    {"kept_ratio": 1.0},
    {"kept_ratio": 0.4},
    {"kept_ratio": 0.4, "retention": "selected"},
    {"kept_ratio": 0.4, "method": "h2o"},
    {"kept_ratio": 0.4, "method": "pyramidinfer", "retention": "selected"},
    {"kept_ratio": 0.4, "codec": "int4"},
]
HONEST = (CacheNotFound, TierDown, CacheFull)  # what may be said instead of an answer


@pytest.fixture(scope="module")
def worker(model: Path, redis_process: RedisServer) -> Iterator[RunningService]:
    """Its device holds three uncompressed documents, its host memory about as much."""
    with running(
        model=str(model),
        window_size=8,
        chunk_tokens=32,
        device_tier_bytes=450 * 1024,
        host_tier_bytes=500 * 1024,
        load_budget_s=0.2,
        redis_url=redis_process.url,
    ) as service:
        yield service


def evict_all(resources: Resources) -> None:
    for entry in resources.store.entries():
        if not entry.is_in_use:
            resources.store.evict(entry)


def forget_one(resources: Resources) -> None:
    """As if it had been another worker's."""
    entry = next(iter(resources.store.entries()), None)
    if entry is not None:
        resources.store.drop(entry)


class Nemesis:
    """One misfortune after another, until it is told to stop."""

    def __init__(self, worker: RunningService, redis: RedisServer) -> None:
        self._worker = worker
        self._redis = redis
        self._draw = random.Random(11)
        self._stop = threading.Event()
        self.num_blows = 0

    def rage(self) -> None:
        blows: list[Callable[[], object]] = [
            self._flip_bits,
            self._lose_keys,
            self._swap_keys,
            self._redis.flush,
            self._freeze,
            lambda: self._redis.client.client_kill_filter(_type="normal", skipme=True),
            lambda: self._worker.ask(evict_all),
            lambda: self._worker.ask(forget_the_host),
            lambda: self._worker.ask(forget_one),
        ]
        while not self._stop.wait(0.03):
            self._draw.choice(blows)()
            self.num_blows += 1

    def stop(self) -> None:
        self._stop.set()

    def _keys(self, share: float) -> list[bytes]:
        return [key for key in frame_keys(self._redis) if self._draw.random() < share]

    def _flip_bits(self) -> None:
        for key in self._keys(0.1):
            if size := self._redis.client.strlen(key):
                self._redis.flip_bit(key, self._draw.randrange(8 * size))

    def _lose_keys(self) -> None:
        if keys := self._keys(0.3):
            self._redis.client.delete(*keys)

    def _swap_keys(self) -> None:
        keys = self._keys(0.1)
        for one, other in zip(keys[::2], keys[1::2], strict=False):
            first, second = self._redis.client.get(one), self._redis.client.get(other)
            if first is not None and second is not None:
                self._redis.client.set(one, second, px=60_000)
                self._redis.client.set(other, first, px=60_000)

    def _freeze(self) -> None:
        self._redis.freeze()
        self._stop.wait(0.3)
        self._redis.resume()


def leave_early(client: Client, question: list[int], name: str) -> None:
    with (
        suppress(*HONEST),
        client.generate(name, token_ids=question, ignore_eos=True, timeout=30.0) as stream,
    ):
        next(stream)


def test_every_answer_is_right_or_honest(worker: RunningService, redis_process: RedisServer) -> None:
    documents = [random_tokens(n, 100 + 7 * n) for n in range(NUM_DOCUMENTS)]
    questions = [random_tokens(50 + n, 3 + n) for n in range(4)]
    kinds = [KINDS[n % len(KINDS)] for n in range(NUM_DOCUMENTS)]
    with asking(worker) as client:
        caches = [
            client.caches.create(token_ids=ids, **kind) for ids, kind in zip(documents, kinds, strict=True)
        ]
        expected = {
            (d, q): answer(client, questions[q], caches[d], max_tokens=10).token_ids
            for d in range(NUM_DOCUMENTS)
            for q in range(len(questions))
        }
    prefilled = prefilled_tokens(worker)

    def ask(seed: int) -> int:
        """How many answers came; each as it should be."""
        draw, num_answers = random.Random(seed), 0
        with Client(worker.target, retry=RetryPolicy(max_attempts=1)) as client:
            for _ in range(NUM_QUESTIONS):
                d, q = draw.randrange(NUM_DOCUMENTS), draw.randrange(len(questions))
                if draw.random() < 0.1:
                    leave_early(client, questions[q], caches[d].name)
                    continue
                try:
                    said = answer(client, questions[q], caches[d].name, max_tokens=10, timeout=30.0)
                except HONEST:
                    client.caches.create(token_ids=documents[d], timeout=30.0, **kinds[d])
                    continue
                assert said.token_ids == expected[d, q], f"document {d}, question {q}"
                num_answers += 1
        return num_answers

    nemesis = Nemesis(worker, redis_process)
    with ThreadPoolExecutor(NUM_ASKERS + 1) as pool:
        raging = pool.submit(nemesis.rage)
        try:
            answers = [future.result() for future in [pool.submit(ask, seed) for seed in range(NUM_ASKERS)]]
        finally:
            nemesis.stop()
        raging.result()
    check_books(worker)
    assert nemesis.num_blows > 10
    assert prefilled_tokens(worker) > prefilled, "nothing was ever lost: this test shows nothing"
    assert sum(answers) > NUM_ASKERS * NUM_QUESTIONS / 2
