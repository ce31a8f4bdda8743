"""A call that is cancelled, late or left behind holds nothing after the step in which the worker hears of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from asking import answer, asking, check_books, create_in_redis, metric, random_tokens
from eventually import eventually
from forgetting import forget_all_but_the_books
from held_worker import held, holding_at
from redis_server import RedisServer
from running_service import RunningService, running

from windowkv.v1 import cache_pb2, cache_pb2_grpc, generation_pb2, generation_pb2_grpc
from windowkv.v1.types_pb2 import Input, TokenIds

CHUNK = 16
DOCUMENT = random_tokens(1, 157)
LONG_QUESTION = random_tokens(2, 40)  # three chunks
SHORT_QUESTION = random_tokens(3, 9)


@pytest.fixture(scope="module")
def worker(model: Path, redis_process: RedisServer) -> Iterator[RunningService]:
    with running(
        model=str(model),
        window_size=8,
        chunk_tokens=CHUNK,
        device_tier_bytes=1 << 22,
        redis_url=redis_process.url,
        load_budget_s=20.0,
        max_running=2,
    ) as service:
        yield service


@pytest.fixture(scope="module")
def cache(worker: RunningService) -> str:
    """Of a compressed document, its question's windows in host memory and Redis."""
    with asking(worker) as client:
        return create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.4).name


@pytest.fixture
def channel(worker: RunningService) -> Iterator[grpc.Channel]:
    """After each test nothing is held, and the worker answers."""
    with grpc.insecure_channel(worker.target) as connected:
        yield connected
        check_books(worker)
    with asking(worker) as client:
        assert len(answer(client, SHORT_QUESTION, max_tokens=3).token_ids) == 3


def create(channel: grpc.Channel, token_ids: list[int], timeout: float | None = None) -> Any:
    request = cache_pb2.CreateCacheRequest(input=Input(token_ids=TokenIds(token_ids=token_ids)))
    return cache_pb2_grpc.CacheServiceStub(channel).CreateCache(request, timeout=timeout)


def generate(
    channel: grpc.Channel,
    token_ids: list[int],
    cache: str = "",
    timeout: float | None = None,
    max_tokens: int = 100,
) -> Any:
    request = generation_pb2.GenerateRequest(
        cache=cache,
        input=Input(token_ids=TokenIds(token_ids=token_ids)),
        sampling=generation_pb2.Sampling(max_tokens=max_tokens, ignore_eos=True),
    )
    return generation_pb2_grpc.GenerationServiceStub(channel).Generate(request, timeout=timeout)


# Where a call can be when it is given up: the runner's method, which call of it, and the call that gets there.
STAGES: dict[str, tuple[str, int, Callable[..., Any]]] = {
    "prefilling a cache": ("prefill", 2, lambda channel, cache, **how: create(channel, DOCUMENT[1:], **how)),
    "prefilling a prompt": (
        "prefill",
        2,
        lambda channel, cache, **how: generate(channel, DOCUMENT[2:], **how),
    ),
    "listening to a question": (
        "listen",
        1,
        lambda channel, cache, **how: generate(channel, LONG_QUESTION, cache, **how),
    ),
    "reading a question": (
        "logits",
        1,
        lambda channel, cache, **how: generate(channel, LONG_QUESTION, cache, **how),
    ),
    "decoding": (
        "logits",
        8,
        lambda channel, cache, **how: generate(channel, SHORT_QUESTION, cache, **how),
    ),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_cancelled_call_ends_with_the_step_it_is_in(
    worker: RunningService, channel: grpc.Channel, cache: str, stage: str
) -> None:
    method, place, start = STAGES[stage]
    cancelled = metric(worker, "windowkv_cancelled_total", reason="client")
    with holding_at(worker, method, place) as hold:
        call = start(channel, cache)
        hold.wait_until_reached()
        call.cancel()
        hold.wait_for_mail()
        hold.release()
        check_books(worker)
        assert hold.num_calls == place
    assert metric(worker, "windowkv_cancelled_total", reason="client") == cancelled + 1


@pytest.mark.parametrize("stage", STAGES)
def test_a_late_call_ends_with_the_step_it_is_in(
    worker: RunningService, channel: grpc.Channel, cache: str, stage: str
) -> None:
    method, place, start = STAGES[stage]
    with holding_at(worker, method, place) as hold:
        call = start(channel, cache, timeout=1.5)
        hold.wait_until_reached()
        with pytest.raises(grpc.RpcError) as refusal:
            for _ in call:
                pass
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        hold.wait_for_mail()
        hold.release()
        check_books(worker)
        assert hold.num_calls == place


@pytest.mark.parametrize("stage", STAGES)
def test_a_client_that_vanishes_is_noticed(
    worker: RunningService, channel: grpc.Channel, cache: str, stage: str
) -> None:
    method, place, start = STAGES[stage]
    with holding_at(worker, method, place) as hold:
        with grpc.insecure_channel(worker.target) as doomed:
            call = start(doomed, cache)  # a call that nobody refers to is cancelled by gRPC
            hold.wait_until_reached()
        hold.wait_for_mail()
        hold.release()
        check_books(worker)
        assert hold.num_calls == place
        assert not call.is_active()


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_a_call_given_up_while_it_fetches_holds_nothing_although_the_fetch_goes_on(
    worker: RunningService, channel: grpc.Channel, cache: str, redis_process: RedisServer, how: str
) -> None:
    worker.ask(forget_all_but_the_books)
    redis_process.freeze()
    try:
        call = generate(channel, SHORT_QUESTION, cache, timeout=1.0 if how == "late" else None)
        assert eventually(lambda: worker.service.engine.status().num_waiting == 1)
        if how == "cancelled":
            call.cancel()
        check_books(worker)
    finally:
        redis_process.resume()
    assert eventually(lambda: worker.resources.tiers[1].status().health.value == "up")


def test_a_waiting_call_that_is_cancelled_leaves_the_queue(
    worker: RunningService, channel: grpc.Channel, cache: str
) -> None:
    with held(worker) as hold:
        running_calls = [generate(channel, SHORT_QUESTION, cache, max_tokens=300) for _ in range(2)]
        hold.wait_for_mail(2)
        waiting = generate(channel, SHORT_QUESTION, cache)
        hold.wait_for_mail(3)
        waiting.cancel()
        hold.wait_for_mail(4)
    for call in running_calls:
        assert sum(len(piece.token_ids) for piece in call) == 300
    assert waiting.cancelled()


def test_a_call_whose_time_passes_in_the_queue_is_not_begun(
    worker: RunningService, channel: grpc.Channel, cache: str
) -> None:
    with holding_at(worker, "logits", 10) as hold:
        running_calls = [generate(channel, SHORT_QUESTION, cache, max_tokens=50) for _ in range(2)]
        hold.wait_until_reached()
        late = generate(channel, SHORT_QUESTION, cache, timeout=0.3)
        with pytest.raises(grpc.RpcError) as refusal:
            next(late)
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        hold.release()
        for call in running_calls:
            assert sum(len(piece.token_ids) for piece in call) == 50


def test_a_creation_given_up_leaves_no_cache(worker: RunningService, channel: grpc.Channel) -> None:
    token_ids = random_tokens(9, 100)
    with holding_at(worker, "prefill", 3) as hold:
        call = create(channel, token_ids)
        hold.wait_until_reached()
        call.cancel()
        hold.wait_for_mail()
    with asking(worker) as client:
        created = client.caches.create(token_ids=token_ids)
        assert created.creation is not None
        assert not created.creation.is_hit


def test_the_other_of_two_identical_creations_goes_on_when_the_first_is_cancelled(
    worker: RunningService, channel: grpc.Channel
) -> None:
    token_ids = random_tokens(10, 100)
    with holding_at(worker, "prefill", 1) as hold:
        first = create(channel, token_ids)
        hold.wait_until_reached()
        second = create(channel, token_ids)
        hold.wait_for_mail()
        first.cancel()
        hold.wait_for_mail(2)
        hold.release()
        created = list(second)[-1].created
    assert created.cache.token_count == 100
    assert not created.is_hit
