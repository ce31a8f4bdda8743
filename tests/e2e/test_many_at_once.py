"""Many requests at once: each is answered as if alone, shared work is done once, and what is full says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import pytest
from asking import Answered, answer, asking, check_books, leaks, metric, prefilled_tokens, random_tokens
from eventually import eventually
from held_worker import held, holding_at
from reference_generation import plain_generate
from running_service import RunningService, running
from tiny_models import save_tiny_model

from windowkv.v1.generation_pb2 import GenerateRequest as WireRequest
from windowkv.v1.generation_pb2 import Sampling as WireSampling
from windowkv.v1.generation_pb2_grpc import GenerationServiceStub
from windowkv.v1.types_pb2 import Input, TokenIds
from windowkv_client import CacheExpired, CacheFull, CacheNotFound, Client, QueueFull, RetryPolicy
from windowkv_service.config import Settings
from windowkv_service.domain.requests import GenerateRequest, Sampling
from windowkv_service.engine.resources import Resources

WINDOW = 8
BYTES_PER_TOKEN = 1024  # of the tiny Llama in float32
DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def worker(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=WINDOW, chunk_tokens=32, device_tier_bytes=1 << 22) as service:
        yield service


@pytest.fixture
def client(worker: RunningService) -> Iterator[Client]:
    with asking(worker) as client:
        yield client
        for cache in client.caches.list():
            client.caches.delete(cache)


def used_blocks(resources: Resources) -> int:
    return sum(pool.num_used for pool in resources.device.pools.values())


# Shared work


def test_two_identical_creations_at_once_are_prefilled_once(client: Client, worker: RunningService) -> None:
    prefilled = prefilled_tokens(worker)
    with holding_at(worker, "prefill", 1) as hold, ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(client.caches.create, token_ids=DOCUMENT, ttl=60 + n) for n in range(4)]
        hold.wait_until_reached()
        hold.wait_for_calls(4)
        hold.release()
        caches = [future.result() for future in futures]
    assert len({cache.name for cache in caches}) == 1
    assert sorted(cache.creation.is_hit for cache in caches if cache.creation) == [False, True, True, True]
    assert prefilled_tokens(worker) == prefilled + len(DOCUMENT)


def test_a_question_on_a_cache_that_is_being_made_waits_for_it(
    client: Client, worker: RunningService
) -> None:
    name = client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0).name
    expected = answer(client, QUESTION, name).token_ids
    client.caches.delete(name)
    with holding_at(worker, "prefill", 2) as hold, ThreadPoolExecutor(2) as pool:
        creating = pool.submit(client.caches.create, token_ids=DOCUMENT, kept_ratio=1.0)
        hold.wait_until_reached()
        asked = pool.submit(answer, client, QUESTION, name)
        hold.wait_for_mail()
        hold.release()
        assert creating.result().name == name
        assert asked.result().token_ids == expected


def test_twelve_questions_on_one_document_share_its_blocks_and_are_answered_as_alone(
    client: Client, worker: RunningService, model: Path
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0)
    questions = [random_tokens(100 + n, 3 + n) for n in range(12)]
    document_blocks = worker.ask(used_blocks)
    with held(worker) as hold, ThreadPoolExecutor(12) as pool:
        asking_all = [pool.submit(answer, client, ids, cache.name, max_tokens=60) for ids in questions]
        hold.wait_for_mail(12)
        hold.release()
        assert eventually(lambda: worker.service.engine.status().num_running == 12)
        num_tails = sum(-(-(len(ids) + 60) // WINDOW) for ids in questions) * 4  # in each of four groups
        assert worker.ask(used_blocks) == document_blocks + num_tails
        answers = [future.result() for future in asking_all]
    for ids, said in zip(questions, answers, strict=True):
        assert said.token_ids == plain_generate(model, DOCUMENT + ids, 60)
        assert (said.usage.source_tier, said.usage.blocks_fetched) == ("device", 0)


def test_questions_that_choose_different_windows_run_in_one_batch(
    client: Client, worker: RunningService
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4)
    questions = [random_tokens(200 + n, 5 + n) for n in range(6)]
    alone = [answer(client, ids, cache).token_ids for ids in questions]
    with held(worker) as hold, ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(answer, client, ids, cache.name) for ids in questions]
        hold.wait_for_mail(6)
        hold.release()
        assert [future.result().token_ids for future in futures] == alone


def test_decoding_goes_on_between_the_chunks_of_a_long_prefill(
    client: Client, worker: RunningService
) -> None:
    order: list[str] = []
    runner = worker.resources.runner
    originals = {name: getattr(runner, name) for name in ("prefill", "logits")}

    def noted(name: str, *arguments: object) -> object:
        order.append(name)
        return originals[name](*arguments)

    for name in originals:
        setattr(runner, name, partial(noted, name))
    try:
        with held(worker) as hold, ThreadPoolExecutor(2) as pool:
            answering = pool.submit(answer, client, QUESTION, max_tokens=100)
            hold.wait_for_mail(1)
            hold.release()
            assert eventually(lambda: order.count("logits") > 3)
            client.caches.create(token_ids=random_tokens(5, 300))
            assert not answering.done()
            during = order[order.index("logits") :]
            answering.result()
    finally:
        for name in originals:
            delattr(runner, name)
    chunks = [place for place, name in enumerate(during) if name == "prefill"]
    assert len(chunks) == 10  # of 32 tokens
    assert all(during[place - 1] == "logits" for place in chunks)


# Caches that go while they are used


def test_an_answer_goes_on_when_its_cache_is_deleted(
    client: Client, worker: RunningService, model: Path
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0)
    with client.generate(cache, token_ids=QUESTION, max_tokens=200, ignore_eos=True) as stream:
        next(stream)
        receipt = client.caches.delete(cache)
        assert receipt.confirmed == ("host",), "the device still holds what is in use"
        with pytest.raises(CacheNotFound):
            client.caches.get(cache)
        stream.read()
    assert list(stream.token_ids) == plain_generate(model, DOCUMENT + QUESTION, 200)
    check_books(worker)
    assert worker.ask(used_blocks) == 0
    assert answer(client, DOCUMENT).usage.cached_tokens == 0, "what was deleted is not found by its content"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_goes_on_when_its_cache_expires(model: Path) -> None:
    clock = Clock()
    settings = Settings(
        listen="127.0.0.1:0", device="cpu", model=str(model), window_size=8, device_tier_bytes=1 << 22
    )
    service = RunningService(settings, clock)
    try:
        with asking(service) as client:
            cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0, ttl=60)
            with client.generate(cache, token_ids=QUESTION, max_tokens=300, ignore_eos=True) as stream:
                next(stream)
                clock.now += 61
                assert eventually(lambda: not service.ask(lambda resources: list(resources.store.entries())))
                stream.read()
            assert list(stream.token_ids) == plain_generate(model, DOCUMENT + QUESTION, 300)
            check_books(service)
            assert service.ask(used_blocks) == 0
    finally:
        service.stop()


def test_a_clock_that_jumps_ends_caches_early_at_most(model: Path) -> None:
    clock = Clock()
    settings = Settings(
        listen="127.0.0.1:0", device="cpu", model=str(model), window_size=8, device_tier_bytes=1 << 22
    )
    service = RunningService(settings, clock)
    try:
        with asking(service) as client:
            cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4, ttl="2h")
            expected = answer(client, QUESTION, cache).token_ids
            for jump_s in (-3600, 7190):
                clock.now += jump_s
                assert answer(client, QUESTION, cache).token_ids == expected
            clock.now += 3600 + 20
            with pytest.raises(CacheExpired):
                answer(client, QUESTION, cache)
            assert answer(client, QUESTION, client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4)).text
    finally:
        service.stop()


def test_created_again_while_an_answer_uses_the_deleted_one(client: Client, worker: RunningService) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4)
    expected = answer(client, QUESTION, cache).token_ids
    with client.generate(cache, token_ids=QUESTION, max_tokens=200, ignore_eos=True) as stream:
        next(stream)
        client.caches.delete(cache)
        again = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4)
        assert answer(client, QUESTION, again).token_ids == expected
        stream.read()
    assert list(stream.token_ids)[:14] == expected
    assert answer(client, QUESTION, again).token_ids == expected


# Full


def impatient(worker: RunningService) -> Client:
    return Client(worker.target, retry=RetryPolicy(max_attempts=1))


def test_more_than_may_wait_are_refused_with_a_time_to_come_back(model: Path) -> None:
    limits = {"max_running": 1, "max_waiting": 2, "device_tier_bytes": 1 << 22}
    with running(model=str(model), window_size=WINDOW, **limits) as small, asking(small) as client:
        with holding_at(small, "logits", 3) as hold, ThreadPoolExecutor(3) as pool:
            first = pool.submit(answer, client, QUESTION, max_tokens=20)
            hold.wait_until_reached()
            others = [pool.submit(answer, client, QUESTION, max_tokens=20) for _ in range(2)]
            hold.wait_for_mail(2)
            with impatient(small) as hasty, pytest.raises(QueueFull) as refusal:
                answer(hasty, QUESTION)
            assert refusal.value.retry_after_s is not None
            assert client.health().is_serving
            hold.release()
            assert len({tuple(future.result().token_ids) for future in [first, *others]}) == 1
        assert metric(small, "windowkv_rejected_total", reason="queue_full") == 1
        assert len(answer(client, QUESTION).token_ids) == 14


@pytest.fixture(scope="module")
def narrow(model: Path) -> Iterator[RunningService]:
    """Its device holds 320 tokens."""
    with running(
        model=str(model), window_size=WINDOW, device_tier_bytes=320 * BYTES_PER_TOKEN, host_tier_bytes=1 << 26
    ) as service:
        yield service


def test_a_cache_larger_than_the_device_is_refused_at_once(narrow: RunningService) -> None:
    with asking(narrow) as client, impatient(narrow) as hasty:
        with pytest.raises(CacheFull) as refusal:
            hasty.caches.create(token_ids=random_tokens(3, 400), kept_ratio=1.0)
        assert refusal.value.retry_after_s is None, "coming back does not help"
        with pytest.raises(CacheFull):
            answer(hasty, QUESTION, max_tokens=400)
        assert client.caches.create(token_ids=random_tokens(3, 400), kept_ratio=0.4).stored_bytes > 0


def test_a_device_full_of_pinned_caches_is_full_until_one_is_unpinned(
    narrow: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windowkv_service.engine.resources.ROOM_WAIT_S", 0.2)
    with asking(narrow) as client, impatient(narrow) as hasty:
        for cache in client.caches.list():
            client.caches.delete(cache)
        pinned = client.caches.create(token_ids=random_tokens(4, 300), kept_ratio=1.0, pinned=True)
        with pytest.raises(CacheFull) as refusal:
            hasty.caches.create(token_ids=DOCUMENT, kept_ratio=1.0)
        assert refusal.value.retry_after_s is not None
        assert len(answer(client, [], pinned, max_tokens=8).token_ids) == 8
        client.caches.update(pinned, pinned=False)
        assert client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0).stored_bytes > 0
        assert client.caches.get(pinned).stored_bytes == 0


def test_a_request_that_finds_the_device_full_waits_for_an_answer_to_end(
    narrow: RunningService, model: Path
) -> None:
    with asking(narrow) as client, ThreadPoolExecutor(2) as pool, holding_at(narrow, "logits", 5) as hold:
        first = pool.submit(answer, client, QUESTION, max_tokens=250)
        hold.wait_until_reached()
        second = pool.submit(answer, client, DOCUMENT, max_tokens=60)
        hold.wait_for_mail()
        hold.release()
        assert first.result().token_ids == plain_generate(model, QUESTION, 250)
        assert second.result().token_ids == plain_generate(model, DOCUMENT, 60)


# Slow readers


def test_a_reader_that_is_away_holds_no_blocks_and_gets_the_rest_in_one_piece(
    worker: RunningService, model: Path
) -> None:
    """At the engine's own door, where nothing buffers for the reader."""
    engine = worker.service.engine
    sampling = Sampling(max_tokens=120, ignore_eos=True)
    request = GenerateRequest("slow", "default", tuple(QUESTION), sampling=sampling)

    async def read_late() -> tuple[list[str], list[int], list[int]]:
        stream = engine.generate(request)
        pieces = [await anext(stream)]
        while engine.status().num_running:
            await asyncio.sleep(0.01)
        found = await asyncio.to_thread(worker.ask, leaks)
        pieces += [piece async for piece in stream]
        sizes = [len(piece.token_ids) for piece in pieces]
        return found, sizes, [token_id for piece in pieces for token_id in piece.token_ids]

    found, sizes, token_ids = worker._run(read_late())
    assert found == []
    assert len(sizes) == 2
    assert token_ids == plain_generate(model, QUESTION, 120)


def test_a_slow_reader_over_the_wire_keeps_nobody_waiting(
    client: Client, worker: RunningService, model: Path
) -> None:
    sampling = WireSampling(max_tokens=400, ignore_eos=True, logprobs=20)
    request = WireRequest(input=Input(token_ids=TokenIds(token_ids=QUESTION)), sampling=sampling)
    with grpc.insecure_channel(worker.target) as channel:
        unread = GenerationServiceStub(channel).Generate(request)
        assert eventually(lambda: worker.service.engine.status().num_running == 1)
        assert eventually(lambda: worker.service.engine.status().num_running == 0)
        assert worker.ask(leaks) == []
        assert isinstance(answer(client, QUESTION), Answered)
        pieces = list(unread)
    token_ids = [token_id for piece in pieces for token_id in piece.token_ids]
    assert token_ids == plain_generate(model, QUESTION, 400)
    assert sum(len(piece.logprobs) for piece in pieces) == 400
    assert pieces[-1].usage.generated_tokens == 400
