"""A promised fidelity: more windows where the budget does not capture enough, up to the full cache."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from asking import answer, asking, create_in_redis, random_tokens
from redis_server import running as running_redis
from reference_generation import plain_generate
from running_service import RunningService, running
from tiny_models import save_tiny_model

from windowkv_client import BadOption, CacheFull, Client, RetryPolicy

WINDOW = 8
DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)
ALL_WINDOWS = -(-len(DOCUMENT) // WINDOW)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def worker(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=WINDOW, device_tier_bytes=1 << 22) as service:
        yield service


@pytest.fixture
def client(worker: RunningService) -> Iterator[Client]:
    with asking(worker) as client:
        yield client


@pytest.fixture(scope="module")
def expected(model: Path) -> list[int]:
    return plain_generate(model, DOCUMENT + QUESTION, 14)


def test_all_of_it_is_the_full_caches_answer(client: Client, expected: list[int]) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.3)
    assert answer(client, QUESTION, cache).token_ids != expected, (
        "the windows do not matter: this shows nothing"
    )
    said = answer(client, QUESTION, cache, min_fidelity=1.0)
    assert (said.token_ids, said.usage.fidelity, said.usage.kept_tokens) == (expected, 1.0, len(DOCUMENT))
    assert said.usage.device_bytes >= cache.full_bytes + cache.index_bytes


@pytest.mark.parametrize("every", [1, 3, 5])
def test_choosing_all_windows_again_and_again_changes_nothing(
    client: Client, expected: list[int], every: int
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.3)
    said = answer(client, QUESTION, cache, min_fidelity=1.0, reselect_every=every)
    assert said.token_ids == expected
    assert said.usage.selections == 1 + 13 // every


def test_a_question_gets_what_it_takes_and_no_more(client: Client) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.3)
    plain = answer(client, QUESTION, cache).usage
    usages = [answer(client, QUESTION, cache, min_fidelity=f).usage for f in (0.01, 0.6, 0.7, 0.8, 0.9, 0.99)]
    for usage, asked in zip(usages, (0.01, 0.6, 0.7, 0.8, 0.9, 0.99), strict=True):
        assert usage.fidelity >= asked
        assert usage.fidelity < asked + 0.1 or usage.device_bytes == plain.device_bytes
    sizes = [usage.device_bytes for usage in usages]
    assert sizes[0] == plain.device_bytes
    assert sizes == sorted(sizes)
    assert sizes[-1] > 2 * sizes[0]


def test_every_choice_of_an_answer_keeps_the_promise(client: Client) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.3)
    usage = answer(client, QUESTION, cache, min_fidelity=0.8, reselect_every=2).usage
    assert usage.selections == 7
    assert usage.fidelity >= 0.8


def test_a_cache_that_forgets_the_rest_keeps_what_it_takes(client: Client, expected: list[int]) -> None:
    create = partial(client.caches.create, token_ids=DOCUMENT, kept_ratio=0.3, retention="selected")
    caches = [create(), *(create(min_fidelity=f) for f in (0.8, 1.0))]
    assert len({cache.name for cache in caches}) == 3
    assert [cache.min_fidelity for cache in caches] == [None, 0.8, 1.0]
    assert caches[0].fidelity < 0.8 <= caches[1].fidelity < caches[2].fidelity == 1.0
    assert caches[0].stored_ratio <= 0.3 < caches[1].stored_ratio < 1.0 <= caches[2].stored_ratio
    assert answer(client, QUESTION, caches[2]).token_ids == expected
    assert create(min_fidelity=0.8).name == caches[1].name


def test_a_caches_promise_holds_for_its_questions_unless_they_say_otherwise(
    client: Client, expected: list[int]
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.3, min_fidelity=1.0)
    assert cache.stored_ratio < 0.3, "between questions the promise costs nothing"
    assert answer(client, QUESTION, cache).token_ids == expected
    assert answer(client, QUESTION, cache, min_fidelity=0.1).usage.fidelity < 0.9


def test_what_keeps_single_tokens_cannot_promise(client: Client) -> None:
    with pytest.raises(BadOption) as raised:
        client.caches.create(token_ids=DOCUMENT, method="snapkv", retention="selected", min_fidelity=0.9)
    assert raised.value.field == "cache.compression.min_fidelity"


def test_a_promise_outlasts_a_restart(model: Path, expected: list[int]) -> None:
    options = {"model": str(model), "window_size": WINDOW, "device_tier_bytes": 1 << 22}
    with running_redis() as redis:
        with running(**options, redis_url=redis.url) as worker, asking(worker) as client:
            cache = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.3, min_fidelity=1.0)
        with running(**options, redis_url=redis.url) as worker, asking(worker) as client:
            assert client.caches.get(cache).min_fidelity == 1.0
            assert answer(client, QUESTION, cache.name).token_ids == expected
            again = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.3, min_fidelity=1.0)
            assert again.creation is not None
            assert again.creation.is_hit


# Room


def test_wide_answers_wait_for_each_others_room(model: Path) -> None:
    """The device holds one of the documents, and four ask for all of theirs at once."""
    room = (ALL_WINDOWS + 14) * WINDOW * 1024
    documents = [random_tokens(seed, len(DOCUMENT)) for seed in range(4)]
    with running(model=str(model), window_size=WINDOW, device_tier_bytes=room) as worker:
        with asking(worker) as client, ThreadPoolExecutor(4) as pool:
            caches = [client.caches.create(token_ids=ids, kept_ratio=0.3) for ids in documents]
            ask = partial(answer, client, QUESTION, min_fidelity=1.0)
            said = list(pool.map(lambda cache: ask(cache.name), caches))
        for ids, one in zip(documents, said, strict=True):
            assert one.token_ids == plain_generate(model, ids + QUESTION, 14)


def test_a_promise_that_no_room_can_keep_is_refused_like_any_lack_of_room(model: Path) -> None:
    settings = {"model": str(model), "window_size": WINDOW, "device_tier_bytes": 12 * WINDOW * 1024}
    with running(**settings) as worker, asking(worker) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.3)
        narrow = answer(client, QUESTION, cache).token_ids
        with Client(worker.target, retry=RetryPolicy(max_attempts=1)) as hasty:
            with pytest.raises(CacheFull):
                answer(hasty, QUESTION, cache.name, min_fidelity=1.0)
            with pytest.raises(CacheFull):
                hasty.caches.create(token_ids=DOCUMENT, retention="selected", min_fidelity=1.0)
        assert answer(client, QUESTION, cache).token_ids == narrow
