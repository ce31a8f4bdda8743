"""A question that ends the cached prompt chooses its windows as one does that is asked later, within the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import Answered, answer, asking
from chain_model import document, save_chain_model
from reference_generation import plain_generate
from running_service import RunningService, running

from windowkv_client import Cache, Client

WINDOW = 8
CHAIN = list(range(10, 18))
DOCUMENT = document(CHAIN, num_tokens=400, seed=0)
PROMPT = [*DOCUMENT, 99, CHAIN[0]]
STEPS = CHAIN[1:]
ENOUGH = 0.2  # leader keys, and eight of 51 windows
TIGHT = 0.06  # one window beside the leader keys


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chain_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def worker(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=WINDOW, device_tier_bytes=1 << 22) as service:
        yield service


@pytest.fixture
def client(worker: RunningService) -> Iterator[Client]:
    with asking(worker) as client:
        yield client


def ask(client: Client, cache: Cache, **options: object) -> Answered:
    return answer(client, [], cache, **{"max_tokens": len(STEPS), "reselect_every": 1, **options})


def test_the_full_cache_walks_the_chain(model: Path) -> None:
    assert plain_generate(model, PROMPT, len(STEPS)) == STEPS


def test_every_step_of_the_answer_is_found(client: Client) -> None:
    cache = client.caches.create(token_ids=PROMPT, kept_ratio=ENOUGH)
    found = ask(client, cache)
    assert found.token_ids == STEPS
    assert found.usage.selections == len(STEPS)
    assert found.usage.device_bytes <= ENOUGH * cache.full_bytes
    assert ask(client, cache, selection="published").token_ids != STEPS, "this test shows nothing"


def test_it_says_what_one_says_that_is_asked_later(client: Client) -> None:
    later = client.caches.create(token_ids=DOCUMENT, kept_ratio=ENOUGH)
    asked = answer(client, PROMPT[len(DOCUMENT) :], later, max_tokens=len(STEPS), reselect_every=1)
    assert ask(client, client.caches.create(token_ids=PROMPT, kept_ratio=ENOUGH)).token_ids == asked.token_ids


def test_where_there_is_no_room_for_the_question_it_runs_again_behind_the_prompt(client: Client) -> None:
    cache = client.caches.create(token_ids=PROMPT, kept_ratio=TIGHT)
    again, roomy = ask(client, cache), ask(client, cache, kept_ratio=ENOUGH)
    assert again.token_ids == roomy.token_ids == STEPS
    assert again.usage.device_bytes < roomy.usage.device_bytes
    assert again.usage.tail_bytes > roomy.usage.tail_bytes
    assert again.usage.prompt_tokens == roomy.usage.prompt_tokens == len(PROMPT)
