"""Requests at and beyond the edges of what may be asked, on a whole worker; after each it still answers. What the wire
finds by itself is tested with it; the common mistakes are in test_refusals.py."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import answer, asking, prefilled_tokens, random_tokens
from running_service import RunningService, running
from tiny_models import VOCAB_SIZE, save_tiny_model

from windowkv_client import Client, RetryPolicy, Unauthenticated, WindowKVError

MAX_TOKENS = 512  # of the tiny model
QUESTION = random_tokens(2, 9)
DOCUMENT = random_tokens(1, 157)
UINT32_MAX = 2**32 - 1


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def worker(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=8, device_tier_bytes=1 << 22) as service:
        yield service


@pytest.fixture
def client(worker: RunningService) -> Iterator[Client]:
    with asking(worker) as patient:
        with Client(worker.target, retry=RetryPolicy(max_attempts=1)) as hasty:
            yield hasty
        assert len(answer(patient, QUESTION, max_tokens=3).token_ids) == 3


def refusal(call: Any, *arguments: Any, **options: Any) -> tuple[str, str, str | None]:
    with pytest.raises(WindowKVError) as error:
        call(*arguments, **options)
    return error.value.status, error.value.reason, error.value.field


# Sampling

BAD_SAMPLINGS = [
    *(("temperature", value) for value in (-1.0, -math.inf, math.inf, math.nan, 100.5)),
    *(("top_p", value) for value in (0.0, -0.5, 1.5, math.nan)),
    *(("top_k", value) for value in (-1, -(2**31))),
    *(("min_p", value) for value in (-0.1, 1.1, math.nan)),
    *(("repetition_penalty", value) for value in (0.0, -1.0, 101.0, math.nan)),
    *(("presence_penalty", value) for value in (-2.5, 2.5, math.nan)),
    *(("frequency_penalty", value) for value in (-2.5, math.inf, math.nan)),
    *(("max_tokens", value) for value in (0, -1, 2**31 - 1)),
    *(("min_tokens", value) for value in (-1, 15)),  # of 14
    *(("seed", value) for value in (-1, -(2**63))),
    *(("logprobs", value) for value in (-1, 21)),
    *(("stop", value) for value in ([""], ["x"] * 17, ["x" * 1001])),
    ("stop_token_ids", [1] * 257),
]


@pytest.mark.parametrize(
    ("name", "value"), BAD_SAMPLINGS, ids=lambda value: str(value)[:20] if value else None
)
def test_a_sampling_parameter_out_of_range_is_refused(client: Client, name: str, value: Any) -> None:
    said = refusal(answer, client, QUESTION, **{"max_tokens": 14, name: value})
    assert said == ("INVALID_ARGUMENT", "BAD_SAMPLING", f"sampling.{name}")


@pytest.mark.parametrize("token_id", [VOCAB_SIZE, UINT32_MAX])
def test_a_stop_token_out_of_the_vocabulary_is_refused(client: Client, token_id: int) -> None:
    said = refusal(answer, client, QUESTION, stop_token_ids=[3, token_id], min_tokens=2)
    assert said == ("INVALID_ARGUMENT", "TOKEN_OUT_OF_VOCABULARY", "sampling.stop_token_ids")


@pytest.mark.parametrize("token_id", [VOCAB_SIZE, UINT32_MAX])
def test_a_prompts_token_out_of_the_vocabulary_is_refused(client: Client, token_id: int) -> None:
    said = refusal(answer, client, [1, 2, token_id])
    assert said == ("INVALID_ARGUMENT", "TOKEN_OUT_OF_VOCABULARY", "input.token_ids[2]")


# Length


def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused_before_it_is_computed(
    client: Client, worker: RunningService
) -> None:
    prefilled = prefilled_tokens(worker)
    said = refusal(answer, client, random_tokens(3, MAX_TOKENS))
    assert said == ("INVALID_ARGUMENT", "PROMPT_TOO_LONG", "input")
    assert prefilled_tokens(worker) == prefilled


def test_the_longest_prompt_gets_one_token(client: Client) -> None:
    said = answer(client, random_tokens(3, MAX_TOKENS - 1), max_tokens=100)
    assert (len(said.token_ids), said.finish_reason) == (1, "length")


def test_a_cache_of_the_models_whole_length_can_be_made_but_not_continued(client: Client) -> None:
    cache = client.caches.create(token_ids=random_tokens(3, MAX_TOKENS), kept_ratio=0.2)
    assert cache.token_count == MAX_TOKENS
    for new in ([], [1]):
        assert refusal(answer, client, new, cache) == ("INVALID_ARGUMENT", "PROMPT_TOO_LONG", "input")


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9])
@pytest.mark.parametrize("ratio", [1.0, 0.12])
def test_a_document_shorter_than_its_observation_is_cached_and_answers(
    client: Client, length: int, ratio: float
) -> None:
    document = random_tokens(length, length)
    cache = client.caches.create(token_ids=document, kept_ratio=ratio)
    assert cache.token_count == length
    assert len(answer(client, QUESTION, cache).token_ids) == 14
    assert len(answer(client, [], cache).token_ids) == 14


def test_an_empty_question_on_nothing_is_refused(client: Client) -> None:
    assert refusal(answer, client, []) == ("INVALID_ARGUMENT", "EMPTY_PROMPT", "input.token_ids")
    assert refusal(client.caches.create, token_ids=[]) == (
        "INVALID_ARGUMENT",
        "EMPTY_PROMPT",
        "input.token_ids",
    )


# Budgets and choices


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.5, math.nan, math.inf])
def test_a_share_that_is_none_is_refused(client: Client, ratio: float) -> None:
    said = refusal(client.caches.create, token_ids=DOCUMENT, kept_ratio=ratio)
    assert said == ("INVALID_ARGUMENT", "BAD_BUDGET", "cache.compression.kept_ratio")
    cache = client.caches.create(token_ids=DOCUMENT)
    said = refusal(answer, client, QUESTION, cache, kept_ratio=ratio)
    assert said == ("INVALID_ARGUMENT", "BAD_BUDGET", "selection.kept_ratio")


@pytest.mark.parametrize("ratio", [5e-324, 1e-9, 0.01, 0.999999, 1.0])
@pytest.mark.parametrize("retention", ["full", "selected"])
def test_any_share_there_is_gives_a_cache_that_answers(client: Client, ratio: float, retention: str) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=ratio, retention=retention)
    said = answer(client, QUESTION, cache)
    assert len(said.token_ids) == 14
    assert 0 < said.usage.kept_tokens <= len(DOCUMENT)
    assert 0.0 <= said.usage.fidelity <= 1.0
    if ratio < 1.0 and retention == "full":
        assert len(answer(client, QUESTION, cache, kept_ratio=5e-324).token_ids) == 14


def test_every_method_that_is_offered_works(client: Client) -> None:
    for method in client.models.get().methods:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.5, method=method)
        assert cache.method == method
        assert len(answer(client, QUESTION, cache).token_ids) == 14


@pytest.mark.parametrize(
    ("options", "selection"),
    [
        ({"kept_ratio": 1.0}, "question"),
        ({"kept_ratio": 0.4, "retention": "selected"}, "question"),
        ({"kept_ratio": 0.4, "retention": "selected"}, "full"),
    ],
)
def test_windows_that_cannot_be_had_are_refused(
    client: Client, options: dict[str, Any], selection: str
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, **options)
    said = refusal(answer, client, QUESTION, cache, selection=selection)
    assert said == ("INVALID_ARGUMENT", "BAD_OPTION", "selection.mode")


def test_without_a_cache_every_window_is_read_and_none_can_be_chosen(
    client: Client, worker: RunningService
) -> None:
    expected = answer(client, DOCUMENT).token_ids
    for selection in ("auto", "published", "full"):
        assert answer(client, DOCUMENT, selection=selection).token_ids == expected
    said = refusal(answer, client, DOCUMENT, selection="question")
    assert said == ("INVALID_ARGUMENT", "BAD_OPTION", "selection.mode")


def test_a_message_larger_than_the_wire_takes_is_refused(client: Client) -> None:
    with pytest.raises(WindowKVError) as error:
        client.caches.create("x" * (33 << 20))
    assert error.value.status == "RESOURCE_EXHAUSTED"


# Tenants


@pytest.fixture(scope="module")
def guarded(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens.json"
    tokens.write_text(json.dumps({"ours": "us", "theirs": "them"}))
    with running(
        model=str(model), window_size=8, device_tier_bytes=1 << 22, tokens_file=str(tokens)
    ) as service:
        yield service


def tenant(service: RunningService, token: str | None) -> Client:
    return Client(service.target, token=token, retry=RetryPolicy(max_attempts=1))


def test_a_foreign_name_and_an_unknown_one_are_answered_alike(guarded: RunningService) -> None:
    with tenant(guarded, "ours") as us, tenant(guarded, "theirs") as them:
        ours = us.caches.create(token_ids=DOCUMENT, alias="contract").name
        unknown = f"caches/{'0' * 40}"
        calls = [
            them.caches.get,
            them.caches.delete,
            lambda name: them.caches.update(name, pinned=True),
            lambda name: answer(them, QUESTION, name),
        ]
        for call in calls:
            for foreign, absent in ((ours, unknown), ("aliases/contract", "aliases/nothing")):
                said = {}
                for name in (foreign, absent):
                    with pytest.raises(WindowKVError) as error:
                        call(name)
                    said[name] = (error.value.reason, error.value.message.replace(name, "it"))
                assert said[foreign] == said[absent]
        assert list(them.caches.list()) == []
        assert us.caches.get("aliases/contract").name == ours
    check_no_leak(guarded)


def test_tenants_share_no_bytes_of_the_same_document(guarded: RunningService) -> None:
    document = random_tokens(20, 120)
    with tenant(guarded, "ours") as us, tenant(guarded, "theirs") as them:
        ours = us.caches.create(token_ids=document, kept_ratio=1.0)
        theirs = them.caches.create(token_ids=document, kept_ratio=1.0)
        assert theirs.name != ours.name
        assert theirs.creation is not None
        assert (theirs.creation.is_hit, theirs.creation.reused_tokens) == (False, 0)
        us.caches.delete(ours)
        assert len(answer(them, QUESTION, theirs).token_ids) == 14
        assert answer(us, document).usage.cached_tokens == 0
    check_no_leak(guarded)


@pytest.mark.parametrize("token", [None, "stolen", ""])
def test_without_a_known_token_nothing_is_answered_but_health(
    guarded: RunningService, token: str | None
) -> None:
    with tenant(guarded, token) as nobody:
        with pytest.raises(Unauthenticated):
            nobody.models.get()
        with pytest.raises(Unauthenticated):
            answer(nobody, QUESTION)
        assert nobody.health().is_serving


def check_no_leak(service: RunningService) -> None:
    with tenant(service, "ours") as us:
        assert len(answer(us, QUESTION).token_ids) == 14
    service.check_integrity()
