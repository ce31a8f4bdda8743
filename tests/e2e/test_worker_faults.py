"""Faults of our own: they end as little as possible, are seen from outside, and leave nothing held."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import answer, asking, check_books, metric, random_tokens
from eventually import eventually
from held_worker import held
from running_service import RunningService, running
from tiny_models import save_tiny_model

from windowkv_client import CacheFull, Client, Draining, InternalError, RetryPolicy
from windowkv_service.engine import resources
from windowkv_service.engine.text import AnswerText
from windowkv_service.kv.buffers import Staging
from windowkv_service.kv.layout import KVLayout

QUESTION = random_tokens(2, 9)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture
def worker(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=8, device_tier_bytes=1 << 21) as service:
        yield service


def break_at(worker: RunningService, method: str, call: int) -> None:
    """The runner's method raises at its call-th call, once."""
    runner = worker.resources.runner
    original, calls = getattr(runner, method), iter(range(1, 1 << 30))

    def broken(*arguments: object) -> object:
        if next(calls) == call:
            raise RuntimeError("the device fell over")
        return original(*arguments)

    setattr(runner, method, broken)


def test_a_step_that_breaks_ends_its_batch_and_nothing_else(worker: RunningService) -> None:
    break_at(worker, "logits", 60)
    with asking(worker) as client, ThreadPoolExecutor(3) as pool:
        with held(worker) as hold:
            answering = [pool.submit(answer, client, random_tokens(n, 5), max_tokens=200) for n in range(3)]
            hold.wait_for_calls(3)
        for future in answering:
            with pytest.raises(InternalError) as failure:
                future.result()
            assert "fell over" not in failure.value.message, "what broke is for the log"
        assert metric(worker, "windowkv_step_faults_total") == 1
        assert len(answer(client, QUESTION).token_ids) == 14


def test_a_pass_that_only_listens_ends_those_who_share_it_when_it_breaks(worker: RunningService) -> None:
    with asking(worker) as client, ThreadPoolExecutor(3) as pool:
        cache = client.caches.create(token_ids=random_tokens(3, 157), kept_ratio=0.4)
        options = {"max_tokens": 60, "reselect_every": 1}
        expected = [answer(client, random_tokens(n, 5), cache, **options).token_ids for n in range(3)]
        break_at(worker, "listen", 40)  # three questions, then the batch, token by token
        with held(worker) as hold:
            questions = [random_tokens(n, 5) for n in range(3)]
            answering = [pool.submit(answer, client, ids, cache.name, **options) for ids in questions]
            hold.wait_for_calls(3)
        failures = [future.exception() for future in answering]
        assert any(isinstance(failure, InternalError) for failure in failures)
        assert metric(worker, "windowkv_step_faults_total") == 1
        again = [answer(client, random_tokens(n, 5), cache, **options).token_ids for n in range(3)]
        assert again == expected


def test_a_prefill_that_breaks_can_be_asked_for_again(worker: RunningService) -> None:
    break_at(worker, "prefill", 1)
    with asking(worker) as client:
        with pytest.raises(InternalError):
            client.caches.create(token_ids=random_tokens(3, 60))
        created = client.caches.create(token_ids=random_tokens(3, 60)).creation
        assert created is not None
        assert not created.is_hit


def test_an_answer_that_breaks_alone_ends_alone(
    worker: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = AnswerText.push

    def push(self: AnswerText, token_id: int, *, may_stop: bool = True) -> str:
        if "break" in self._stops:
            raise ValueError("this text cannot be made")
        return original(self, token_id, may_stop=may_stop)

    monkeypatch.setattr(AnswerText, "push", push)
    with asking(worker) as client, ThreadPoolExecutor(2) as pool:
        with held(worker) as hold:
            well = pool.submit(answer, client, QUESTION, max_tokens=40)
            broken = pool.submit(answer, client, QUESTION, max_tokens=40, stop=["break"])
            hold.wait_for_calls(2)
        with pytest.raises(InternalError):
            broken.result()
        assert len(well.result().token_ids) == 40


def test_a_worker_whose_thread_has_ended_says_so_instead_of_hanging(worker: RunningService) -> None:
    def break_down() -> None:
        raise RuntimeError("the books are wrong")

    with Client(worker.target, retry=RetryPolicy(max_attempts=1)) as client:
        with ThreadPoolExecutor(1) as pool:
            with held(worker) as hold:
                answering = pool.submit(answer, client, QUESTION, max_tokens=400)
                hold.wait_for_calls(1)
                worker.service.engine._inbox.put(break_down)
            assert answering.exception(timeout=20) is not None
        assert eventually(lambda: not client.health().is_serving)
        with pytest.raises(Draining):
            answer(client, QUESTION)


def test_a_prompt_that_the_device_cannot_stage_is_refused_and_others_are_not(
    worker: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SmallStaging(Staging):
        def __init__(self, layout: KVLayout, capacity: int, **options: Any) -> None:
            if capacity > 100:
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().__init__(layout, capacity, **options)

    monkeypatch.setattr(resources, "Staging", SmallStaging)
    with Client(worker.target, retry=RetryPolicy(max_attempts=1)) as client:
        with pytest.raises(CacheFull, match="157 tokens"):
            client.caches.create(token_ids=random_tokens(3, 157))
        client.caches.create(token_ids=random_tokens(3, 90))
    check_books(worker)
