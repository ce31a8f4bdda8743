"""SIGTERM on a real worker process: what runs is finished, what is new goes elsewhere, nothing spilled is lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from asking import answer, asking, create_in_redis, prefilled_tokens, random_tokens
from eventually import eventually
from redis_server import RedisServer
from redis_server import running as running_redis
from reference_generation import plain_generate
from running_service import running
from tiny_models import save_tiny_model
from worker_process import WorkerProcess, worker_process

from windowkv_client import Cache, Client, Draining, RetryPolicy, Unavailable
from windowkv_client._client import GenerateStream

QUESTION = random_tokens(2, 9)
NUM_TOKENS = 700  # long enough to still run when the signal has been heard
START = Callable[..., AbstractContextManager[WorkerProcess]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that can talk for a while."""
    directory = save_tiny_model(tmp_path_factory.mktemp("model"), "llama")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    return directory


@pytest.fixture
def start(model: Path, tmp_path: Path) -> START:
    options = {"window_size": 8, "device_tier_bytes": 1 << 23, "num_threads": 1}
    return partial(worker_process, tmp_path / "log", model=model, **options)


def begin(client: Client) -> GenerateStream:
    """A long answer, of which the first piece has come."""
    stream = client.generate(token_ids=QUESTION, max_tokens=NUM_TOKENS, ignore_eos=True, resume=False)
    next(stream)
    return stream


def hasty(worker: WorkerProcess) -> Client:
    return Client(worker.target, retry=RetryPolicy(max_attempts=1))


def check_restored(model: Path, redis: RedisServer, cache: Cache) -> None:
    """A worker started after the end finds the cache whole."""
    settings = {"window_size": 8, "device_tier_bytes": 1 << 23, "redis_url": redis.url}
    with running(model=str(model), **settings) as worker, asking(worker) as client:
        said = answer(client, QUESTION, cache.name)
        assert (said.usage.source_tier, said.usage.is_recomputed) == ("redis", False)
        assert prefilled_tokens(worker) == 0


def test_sigterm_lets_running_answers_end_refuses_new_ones_and_loses_nothing(
    start: START, model: Path
) -> None:
    with running_redis() as redis:
        with start(drain_s=60, redis_url=redis.url) as worker, hasty(worker) as client:
            stream = begin(client)
            cache = client.caches.create(token_ids=random_tokens(3, 300), kept_ratio=0.3)
            worker.signal(signal.SIGTERM)
            assert eventually(lambda: not client.health().is_serving)
            with pytest.raises(Draining) as refusal:
                answer(client, QUESTION)
            assert (refusal.value.status, refusal.value.retry_after_s) == ("UNAVAILABLE", 1.0)
            with pytest.raises(Draining):
                client.caches.create(token_ids=QUESTION)
            stream.read()
            assert list(stream.token_ids) == plain_generate(model, QUESTION, NUM_TOKENS)
            assert worker.wait() == 0
        check_restored(model, redis, cache)


def test_a_second_signal_ends_it_at_once_and_redis_keeps_what_it_acknowledged(
    start: START, model: Path
) -> None:
    with running_redis() as redis:
        with start(drain_s=60, redis_url=redis.url) as worker, hasty(worker) as client:
            cache = create_in_redis(client, token_ids=random_tokens(3, 300), kept_ratio=0.3)
            stream = begin(client)
            worker.signal(signal.SIGTERM)
            assert eventually(lambda: not client.health().is_serving)
            worker.signal(signal.SIGTERM)
            assert worker.wait() == -signal.SIGTERM
            with pytest.raises(Unavailable):
                stream.read()
        check_restored(model, redis, cache)


def test_an_answer_that_takes_longer_than_the_drain_is_cut_off_and_nothing_of_it_is_logged(
    start: START, tmp_path: Path
) -> None:
    with start(drain_s=0.2, log_level="debug") as worker, hasty(worker) as client:
        cache = client.caches.create("a document of secrets: xylograph", kept_ratio=0.5, ttl=60)
        said = client.generate(cache, "tell quixotry", max_tokens=5, ignore_eos=True).read()
        stream = begin(client)
        worker.signal(signal.SIGINT)
        with pytest.raises(Draining):
            stream.read()
        assert worker.wait() == 0
    log = (tmp_path / "log").read_text()
    assert "CreateCache" in log, "the log tells of the calls"
    for private in ("xylograph", "quixotry", said):
        assert private not in log
