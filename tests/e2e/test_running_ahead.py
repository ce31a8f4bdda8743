"""Steps that are launched before the last one's tokens are read, as on a GPU, say what steps one by one say."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asking import Answered, answer, asking, check_books, random_tokens
from chain_model import document, save_chain_model
from running_service import RunningService, running
from tiny_models import save_tiny_model

from windowkv_client import Client
from windowkv_service.engine.passes import Passes
from windowkv_service.engine.resources import Resources
from windowkv_service.model.graphs import as_it_is

WINDOW = 8
DOCUMENT = random_tokens(1, 157)
CHAIN = list(range(10, 18))
# Of different lengths and ends, so that batches change all the time.
ASKED: list[dict[str, Any]] = [
    {"max_tokens": 1},
    {"max_tokens": 2, "temperature": 1.0, "seed": 1},
    {"max_tokens": 23, "temperature": 0.9, "seed": 2, "frequency_penalty": 0.5, "repetition_penalty": 1.3},
    {"max_tokens": 9, "logprobs": 3},
    {"max_tokens": 16, "temperature": 1.5, "seed": 3, "top_p": 0.9, "logprobs": 0},
    {"max_tokens": 40, "temperature": 2.0, "seed": 4, "stop": ["a", "e", "\n"]},
    {"max_tokens": 40, "temperature": 2.0, "seed": 5, "ignore_eos": False, "min_tokens": 3},
    {
        "max_tokens": 31,
        "stop_token_ids": list(range(0, 256, 5)),
        "temperature": 1.0,
        "seed": 6,
        "min_tokens": 2,
    },
]


def ahead(worker: RunningService) -> None:
    """From its first decode step on; blocks that all tables have are read once for all, and questions run over static
    memory: as on a GPU."""
    worker.ask(lambda resources: setattr(resources, "runs_ahead", True))
    worker.ask(lambda resources: setattr(resources, "min_shared", 1))
    worker.ask(lambda resources: setattr(resources, "passes", over_static_memory(resources)))


def over_static_memory(resources: Resources) -> Passes:
    model = resources.model
    return Passes(resources.runner, model.layout.window_size, model.device, as_it_is)


@pytest.fixture(scope="module", params=[False, True], ids=["one-by-one", "ahead"])
def said(request: pytest.FixtureRequest, model: Path) -> list[Answered]:
    """What a worker answers to all at once, and then to each alone."""
    with running(model=str(model), window_size=WINDOW, chunk_tokens=64, device_tier_bytes=1 << 22) as worker:
        if request.param:
            ahead(worker)
        with asking(worker) as client:
            cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.5)
            ask = lambda number: answer(client, random_tokens(9 + number, 5), cache, **ASKED[number])  # noqa: E731
            with ThreadPoolExecutor(len(ASKED)) as pool:
                together = list(pool.map(ask, range(len(ASKED))))
            alone = [ask(number) for number in range(len(ASKED))]
        for one, other in zip(together, alone, strict=True):
            assert (one.token_ids, one.text, one.finish_reason) == (
                other.token_ids,
                other.text,
                other.finish_reason,
            )
        return together


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def plain(model: Path) -> list[Answered]:
    options: dict[str, Any] = {"window_size": WINDOW, "chunk_tokens": 64, "device_tier_bytes": 1 << 22}
    with running(model=str(model), **options) as worker, asking(worker) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.5)
        return [answer(client, random_tokens(9 + n, 5), cache, **asked) for n, asked in enumerate(ASKED)]


def test_answers_are_the_same(said: list[Answered], plain: list[Answered]) -> None:
    for one, other in zip(said, plain, strict=True):
        assert (one.token_ids, one.text, one.finish_reason) == (
            other.token_ids,
            other.text,
            other.finish_reason,
        )
        assert one.usage.generated_tokens == other.usage.generated_tokens


def test_some_end_early_and_some_do_not(plain: list[Answered]) -> None:
    assert {each.finish_reason for each in plain} == {"stop", "length"}


@pytest.mark.parametrize("every", [1, 2, 3])
def test_windows_that_are_chosen_again_count_from_the_next_token_on(
    tmp_path_factory: pytest.TempPathFactory, every: int
) -> None:
    """What was run ahead over the former windows is not said."""
    chain_model = save_chain_model(tmp_path_factory.mktemp("chain"))
    asked, found = document(CHAIN, num_tokens=400, seed=0), []
    for is_ahead in (False, True):
        with running(model=str(chain_model), window_size=WINDOW, device_tier_bytes=1 << 22) as worker:
            if is_ahead:
                ahead(worker)
            with asking(worker) as client:
                cache = client.caches.create(token_ids=asked, kept_ratio=0.08)
                options = {"max_tokens": len(CHAIN) - 1, "reselect_every": every}
                found.append(answer(client, [99, CHAIN[0]], cache, **options).token_ids)
    assert found[0] == found[1]
    if every == 1:
        assert found[1] == CHAIN[1:]


@pytest.fixture
def leaving(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=WINDOW, device_tier_bytes=1 << 22) as worker:
        ahead(worker)
        yield worker


def test_who_leaves_in_the_middle_gives_all_back_and_disturbs_nobody(
    leaving: RunningService, plain: list[Answered]
) -> None:
    with Client(leaving.target) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.5)
        for _ in range(3):
            with client.generate(cache, token_ids=[1, 2, 3], max_tokens=200, ignore_eos=True) as stream:
                for _, _ in zip(range(4), stream, strict=False):
                    pass
                assert answer(client, random_tokens(11, 5), cache, **ASKED[2]).token_ids == plain[2].token_ids
    check_books(leaving)
