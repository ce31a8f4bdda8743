"""What a caller may rely on, whoever serves: a worker with a model, or the server that comes for users' own tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from running_service import running
from tiny_models import save_tiny_model

import windowkv_client
from windowkv_client import (
    CacheNotFound,
    Client,
    Codec,
    FinishReason,
    Progress,
    RetryPolicy,
    Tier,
    WindowKVError,
)
from windowkv_client.testing import InProcessServer

MAX_TOKENS = 512
DOCUMENT = "A fact, and another one. " * 12
UNKNOWN = "caches/" + "0" * 40


@pytest.fixture(scope="module", params=["in_process_server", "worker"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "in_process_server":
        with InProcessServer(max_tokens=MAX_TOKENS) as server:
            yield server.target
        return
    model = save_tiny_model(tmp_path_factory.mktemp("llama"), "llama")
    with running(model=str(model), window_size=8, chunk_tokens=32) as worker:
        yield worker.target


@pytest.fixture
def client(target: str) -> Iterator[Client]:
    with Client(target, retry=RetryPolicy(max_attempts=1)) as connected:
        yield connected
        for cache in list(connected.caches.list()):
            connected.caches.delete(cache)


def test_a_cache_is_described_as_it_was_asked_for(client: Client) -> None:
    cache = client.caches.create(
        DOCUMENT,
        kept_ratio=0.5,
        min_fidelity=0.25,
        ttl="1h",
        display_name="facts",
        labels={"of": "test"},
        alias="facts",
        pinned=True,
    )
    assert (cache.display_name, cache.labels, cache.alias, cache.pinned) == (
        "facts",
        {"of": "test"},
        "facts",
        True,
    )
    assert (cache.kept_ratio, cache.min_fidelity, cache.method) == (0.5, 0.25, "windowkv")
    assert cache.token_count == client.models.count_tokens(DOCUMENT)
    assert 0 < cache.kept_token_count <= cache.token_count
    assert 0 < cache.stored_bytes <= 0.5 * cache.full_bytes
    assert cache.full_bytes == cache.token_count * client.models.get().kv_bytes_per_token
    assert cache.tier is Tier.DEVICE
    assert client.caches.get(cache.name).name == client.caches.get("aliases/facts").name == cache.name


def test_the_same_prompt_is_the_same_cache_and_a_hit(client: Client) -> None:
    progress: list[Progress] = []
    first = client.caches.create(DOCUMENT, on_progress=progress.append)
    again = client.caches.create(DOCUMENT)
    by_tokens = client.caches.create(token_ids=client.models.tokenize(DOCUMENT))
    assert first.name == again.name == by_tokens.name
    assert progress and progress[-1].total_tokens == first.token_count
    assert first.creation is not None and not first.creation.is_hit
    assert again.creation is not None and again.creation.is_hit
    assert again.creation.reused_tokens == first.token_count


def test_another_codec_is_another_cache(client: Client) -> None:
    default = client.models.get().default_codec
    caches = {codec: client.caches.create(DOCUMENT, codec=codec) for codec in Codec}
    assert [cache.codec for cache in caches.values()] == list(Codec)
    assert len({cache.name for cache in caches.values()}) == len(Codec)
    assert client.caches.create(DOCUMENT).name == caches[default].name


def test_pages_join_to_the_whole_list_newest_first(client: Client) -> None:
    names = [
        client.caches.create(f"{index} {DOCUMENT}", labels={"odd": str(index % 2)}).name for index in range(5)
    ]
    assert [cache.name for cache in client.caches.list(page_size=2)] == names[::-1]
    assert [cache.name for cache in client.caches.list(labels={"odd": "1"})] == [names[3], names[1]]


def test_an_update_changes_what_it_names_and_nothing_else(client: Client) -> None:
    cache = client.caches.create(DOCUMENT, display_name="old", labels={"a": "b"}, ttl=60)
    changed = client.caches.update(cache, ttl="2h", display_name="new", alias="it")
    assert (changed.display_name, changed.alias, changed.labels) == ("new", "it", {"a": "b"})
    assert changed.expire_time > cache.expire_time
    assert client.caches.update("aliases/it", alias="", labels={}).labels == {}
    with pytest.raises(CacheNotFound):
        client.caches.get("aliases/it")


def test_an_alias_moves_to_whom_it_is_given_last(client: Client) -> None:
    first = client.caches.create(DOCUMENT, alias="latest")
    second = client.caches.create("other " + DOCUMENT, alias="latest")
    assert client.caches.get("aliases/latest").name == second.name
    assert client.caches.get(first).alias == ""
    client.caches.update(first, alias="latest")
    assert client.caches.get("aliases/latest").name == first.name


def test_what_is_deleted_is_gone(client: Client) -> None:
    cache = client.caches.create(DOCUMENT)
    receipt = client.caches.delete(cache)
    assert receipt.confirmed and receipt.unreachable == ()
    with pytest.raises(CacheNotFound):
        client.caches.get(cache)
    with pytest.raises(CacheNotFound):
        client.generate(cache, "x").read()
    assert client.caches.delete(cache, allow_missing=True).confirmed == ()


def test_an_answer_is_counted_and_ends_with_its_reason(client: Client) -> None:
    cache = client.caches.create(DOCUMENT)
    with client.generate(cache, "A fact", max_tokens=5, ignore_eos=True) as answer:
        chunks = list(answer)
    assert sum((chunk.token_ids for chunk in chunks), ()) == answer.token_ids
    assert "".join(chunk.text for chunk in chunks) == answer.text
    assert answer.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)
    assert answer.usage is not None
    assert answer.usage.generated_tokens == len(answer.token_ids) <= 5
    assert answer.usage.cached_tokens == cache.token_count
    assert answer.usage.prompt_tokens == cache.token_count + len("A fact")
    assert answer.usage.source_tier in (Tier.DEVICE, Tier.HOST)
    assert client.caches.get(cache).hit_count >= 1


def test_the_same_greedy_question_has_the_same_answer(client: Client) -> None:
    cache = client.caches.create(DOCUMENT)
    first, second = (client.generate(cache, "A fact", max_tokens=8) for _ in range(2))
    assert first.read() == second.read() and first.token_ids == second.token_ids


def test_an_answer_without_a_cache_is_computed(client: Client) -> None:
    answer = client.generate(text="never seen before, never seen", max_tokens=3)
    answer.read()
    assert answer.usage is not None
    assert answer.usage.source_tier is None and answer.usage.cached_tokens == 0


@pytest.mark.parametrize("text", ["plain", "naïve ünïcode", "日本語 🎉", "\n\t "])
def test_text_survives_the_tokenizer(client: Client, text: str) -> None:
    token_ids = client.models.tokenize(text, add_special_tokens=False)
    assert client.models.detokenize(token_ids) == text
    assert client.models.count_tokens(token_ids=token_ids) == len(token_ids)


def test_health_knows_the_model(client: Client) -> None:
    health = client.health()
    assert health.is_serving and health.model == client.models.get()
    assert health.worker is not None and health.worker.is_ready and not health.worker.is_draining


BAD_CREATIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"text": ""}, "EMPTY_PROMPT", "input.text"),
    ({"token_ids": []}, "EMPTY_PROMPT", "input.token_ids"),
    ({"text": "a" * (MAX_TOKENS + 1)}, "PROMPT_TOO_LONG", "input"),
    ({"token_ids": [5, 4_000_000]}, "TOKEN_OUT_OF_VOCABULARY", "input.token_ids[1]"),
    ({"text": "a", "kept_ratio": 0.0}, "BAD_BUDGET", "cache.compression.kept_ratio"),
    ({"text": "a", "kept_ratio": 1.5}, "BAD_BUDGET", "cache.compression.kept_ratio"),
    ({"text": "a", "kept_ratio": float("nan")}, "BAD_BUDGET", "cache.compression.kept_ratio"),
    ({"text": "a", "min_fidelity": 0.0}, "BAD_BUDGET", "cache.compression.min_fidelity"),
    ({"text": "a", "min_fidelity": 1.01}, "BAD_BUDGET", "cache.compression.min_fidelity"),
    ({"text": "a", "min_fidelity": float("nan")}, "BAD_BUDGET", "cache.compression.min_fidelity"),
    ({"text": "a", "method": "magic"}, "UNKNOWN_METHOD", "cache.compression.method"),
    ({"text": "a", "ttl": 0}, "BAD_TTL", "cache.ttl"),
    ({"text": "a", "ttl": -5}, "BAD_TTL", "cache.ttl"),
    ({"text": "a", "alias": "No Spaces"}, "BAD_NAME", "cache.alias"),
    ({"text": "a", "labels": {"Upper": "x"}}, "BAD_OPTION", "cache.labels"),
    ({"text": "a", "display_name": "x" * 129}, "BAD_OPTION", "cache.display_name"),
    ({"text": "a", "model": "another"}, "MODEL_MISMATCH", "cache.model"),
]


@pytest.mark.parametrize(("request_", "reason", "field"), BAD_CREATIONS, ids=lambda value: str(value)[:40])
def test_a_bad_creation_is_refused_with_its_reason(
    client: Client, request_: dict[str, Any], reason: str, field: str
) -> None:
    refused(lambda: client.caches.create(**request_), reason, field)
    assert list(client.caches.list()) == []


BAD_SAMPLING: list[tuple[str, Any]] = [
    ("max_tokens", 0),
    ("max_tokens", -3),
    ("temperature", -0.1),
    ("temperature", float("nan")),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("top_k", -1),
    ("min_p", 2.0),
    ("repetition_penalty", 0.0),
    ("presence_penalty", 3.0),
    ("frequency_penalty", -3.0),
    ("seed", -1),
    ("stop", [""]),
    ("logprobs", 21),
    ("min_tokens", 1000),
]


@pytest.mark.parametrize(("name", "value"), BAD_SAMPLING)
def test_an_absurd_sampling_value_is_refused_by_name(client: Client, name: str, value: object) -> None:
    options: dict[str, Any] = {name: value}
    refused(lambda: client.generate(text="hello", **options).read(), "BAD_SAMPLING", f"sampling.{name}")


def test_a_bad_question_is_refused_with_its_reason(client: Client) -> None:
    cache = client.caches.create(DOCUMENT)
    refused(lambda: client.generate(text="").read(), "EMPTY_PROMPT", "input.text")
    refused(lambda: client.generate(UNKNOWN, "x").read(), "CACHE_NOT_FOUND", "cache")
    refused(lambda: client.generate("aliases/nobody", "x").read(), "CACHE_NOT_FOUND", "cache")
    refused(lambda: client.generate("nonsense", "x").read(), "BAD_NAME", "cache")
    refused(lambda: client.generate(cache, "x", kept_ratio=2.0).read(), "BAD_BUDGET", "selection.kept_ratio")
    refused(
        lambda: client.generate(cache, "x", min_fidelity=0.0).read(), "BAD_BUDGET", "selection.min_fidelity"
    )
    refused(
        lambda: client.generate(cache, "x", reselect_every=-1).read(),
        "BAD_OPTION",
        "selection.reselect_every",
    )
    refused(lambda: client.generate(cache, "x", model="another").read(), "MODEL_MISMATCH", "model")
    refused(lambda: client.generate(cache, "a" * MAX_TOKENS).read(), "PROMPT_TOO_LONG", "input")


def test_a_bad_name_filter_or_mask_is_refused_with_its_reason(client: Client) -> None:
    cache = client.caches.create(DOCUMENT)
    refused(lambda: client.caches.get("caches/short"), "BAD_NAME", "name")
    refused(lambda: client.caches.get(UNKNOWN), "CACHE_NOT_FOUND", "name")
    refused(lambda: client.caches.delete(UNKNOWN), "CACHE_NOT_FOUND", "name")
    refused(lambda: client.caches.update(UNKNOWN, pinned=True), "CACHE_NOT_FOUND", "cache.name")
    refused(lambda: client.caches.update(cache), "BAD_UPDATE_MASK", "update_mask")
    refused(lambda: client.caches.update(cache, ttl=-1), "BAD_TTL", "cache.ttl")
    refused(lambda: list(client.caches.list(labels={"Upper": "x"})), "BAD_FILTER", "label_filter")


def refused(call: Any, reason: str, field: str | None) -> None:
    with pytest.raises(WindowKVError) as raised:
        call()
    error = raised.value
    assert (error.reason, error.field) == (reason, field)
    assert error.request_id and error.message
    assert type(error).__name__ in windowkv_client.__all__
