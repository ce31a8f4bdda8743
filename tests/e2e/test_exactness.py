"""With nothing dropped, the service says what transformers says, token for token; with windows dropped, what a plain
forward pass with those positions masked says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from reference_generation import masked_generate, plain_generate
from running_service import RunningService, running
from tiny_models import ARCHITECTURES, save_tiny_model

from windowkv_client import Client

NUM_TOKENS = 14


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=8, chunk_tokens=32) as worker:
        yield worker


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    with Client(service.target) as connected:
        yield connected
    service.check_integrity()


def prompt(seed: int, length: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(256) for _ in range(length)]


def answer(client: Client, token_ids: list[int], cache: str | None = None, **options: object) -> list[int]:
    with client.generate(
        cache, token_ids=token_ids, max_tokens=NUM_TOKENS, ignore_eos=True, **options
    ) as stream:
        for _ in stream:
            pass
    return list(stream.token_ids)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 40, 101])
def test_a_prompt_is_continued_as_transformers_does(client: Client, model: Path, length: int) -> None:
    ids = prompt(length, length)
    assert answer(client, ids) == plain_generate(model, ids, NUM_TOKENS)


def test_a_second_time_it_comes_from_the_cached_prefix(client: Client, model: Path) -> None:
    ids = prompt(1, 90)
    first = answer(client, ids)
    with client.generate(token_ids=ids, max_tokens=NUM_TOKENS, ignore_eos=True) as stream:
        again = [token for chunk in stream for token in chunk.token_ids]
    assert stream.usage is not None
    assert stream.usage.cached_tokens >= 80
    assert first == again == plain_generate(model, ids, NUM_TOKENS)


@pytest.mark.parametrize("length", [16, 61, 96])
@pytest.mark.parametrize("num_new", [0, 1, 40])
def test_an_uncompressed_cache_is_continued_as_transformers_does(
    client: Client, model: Path, length: int, num_new: int
) -> None:
    ids, new = prompt(length + 1000, length), prompt(num_new, num_new)
    cache = client.caches.create(token_ids=ids, kept_ratio=1.0)
    assert answer(client, new, cache.name) == plain_generate(model, ids + new, NUM_TOKENS)


def test_a_mixed_batch_answers_each_as_if_alone(client: Client, model: Path) -> None:
    cache = client.caches.create(token_ids=prompt(2, 77), kept_ratio=1.0)
    jobs = [(prompt(seed, 3 + 11 * seed), None) for seed in range(4)] + [
        (prompt(9, 5), cache.name),
        ([], cache.name),
    ]
    with ThreadPoolExecutor(len(jobs)) as pool:
        answers = list(pool.map(lambda job: answer(client, *job), jobs))
    expected = [
        plain_generate(model, (prompt(2, 77) if name else []) + ids, NUM_TOKENS) for ids, name in jobs
    ]
    assert answers == expected


def test_dropped_windows_are_masked_positions(client: Client, service: RunningService, model: Path) -> None:
    ids, new = prompt(3, 150), prompt(4, 9)
    cache = client.caches.create(
        token_ids=ids, kept_ratio=0.4, method="windowkv-published", retention="selected"
    )
    kept = service.ask(lambda resources: kept_positions(resources, cache.name))
    assert answer(client, new, cache.name) == masked_generate(model, ids, new, kept, NUM_TOKENS)


def kept_positions(resources: object, name: str) -> dict[int, list[int]]:
    """Every layer's kept positions of the prompt, from the entry's own books."""
    entry = resources.store.get("default", name)  # type: ignore[attr-defined]
    layout = resources.model.layout  # type: ignore[attr-defined]
    size = layout.window_size
    return {
        layer: [
            position
            for window in entry.windows[group]
            for position in range(window * size, min(entry.token_count, (window + 1) * size))
        ]
        for layer, (group, _) in layout.places.items()
    }
