"""client.caches and client.models, against a server that is real but for its model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from windowkv_client import (
    BadPageToken,
    Cache,
    CacheExpired,
    CacheNotFound,
    CacheState,
    Client,
    Codec,
    Progress,
    Retention,
    Task,
    Tier,
    Unauthenticated,
)
from windowkv_client.testing import InProcessServer

DOCUMENT = "word " * 400


def test_a_new_cache_is_described(client: Client) -> None:
    cache = client.caches.create(
        DOCUMENT,
        kept_ratio=0.25,
        task="aggregation",
        retention=Retention.SELECTED,
        codec="int4",
        ttl=timedelta(hours=1),
        display_name="words",
        labels={"kind": "test"},
        alias="words",
        pinned=True,
    )
    assert cache.name.startswith("caches/") and cache.state is CacheState.READY
    assert (cache.kept_ratio, cache.task, cache.retention) == (0.25, Task.AGGREGATION, "selected")
    assert cache.codec is Codec.INT4
    assert (cache.display_name, cache.labels, cache.alias, cache.pinned) == (
        "words",
        {"kind": "test"},
        "words",
        True,
    )
    assert cache.token_count == 2000 and 0 < cache.kept_token_count <= 500
    assert 0 < cache.stored_bytes <= 0.25 * cache.full_bytes and cache.stored_ratio <= 0.25
    assert cache.tier is Tier.DEVICE and cache.bytes_by_tier == {Tier.DEVICE: cache.stored_bytes}
    life = cache.expire_time - datetime.now(UTC)
    assert timedelta(minutes=59) < life <= timedelta(hours=1)


def test_progress_runs_to_the_end(client: Client) -> None:
    heard: list[Progress] = []
    cache = client.caches.create(DOCUMENT, on_progress=heard.append)
    assert [each.done_tokens for each in heard] == [0, 512, 1024, 1536]
    assert {each.total_tokens for each in heard} == {cache.token_count}


def test_the_same_prompt_is_the_same_cache(client: Client) -> None:
    first, again = client.caches.create(DOCUMENT), client.caches.create(text=DOCUMENT)
    assert first.name == again.name
    assert first.creation is not None and not first.creation.is_hit
    assert again.creation is not None and again.creation.is_hit
    assert client.caches.create(DOCUMENT, kept_ratio=0.5).name != first.name


def test_the_three_forms_of_a_prompt(client: Client) -> None:
    assert client.caches.create("ab").name == client.caches.create(token_ids=[97, 98]).name
    chat = client.caches.create(messages=[{"role": "system", "content": "ab"}])
    assert chat.token_count == client.models.count_tokens(messages=[{"role": "system", "content": "ab"}])


def test_a_cache_is_found_by_name_by_alias_and_by_itself(client: Client) -> None:
    cache = client.caches.create(DOCUMENT, alias="words")
    assert client.caches.get(cache) == client.caches.get(cache.name) == client.caches.get("aliases/words")


def test_a_list_reads_all_its_pages_newest_first(client: Client) -> None:
    names = [client.caches.create(f"document {index}").name for index in range(7)]
    assert [cache.name for cache in client.caches.list(page_size=3)] == names[::-1]
    assert [cache.name for cache in client.caches.list(page_size=7)] == names[::-1]


def test_a_list_keeps_to_its_labels(client: Client) -> None:
    kept = client.caches.create("one", labels={"kind": "a", "of": "x"})
    client.caches.create("two", labels={"kind": "b"})
    assert [cache.name for cache in client.caches.list(labels={"kind": "a"})] == [kept.name]


def test_an_update_changes_what_it_names(client: Client) -> None:
    cache = client.caches.create(DOCUMENT, display_name="old", labels={"a": "b"}, alias="old")
    changed = client.caches.update(cache, ttl="2h", pinned=True, display_name="new")
    assert (changed.display_name, changed.pinned, changed.alias) == ("new", True, "old")
    assert changed.labels == {"a": "b"} and changed.expire_time > cache.expire_time
    cleared = client.caches.update(cache, labels={}, alias="")
    assert (cleared.labels, cleared.alias, cleared.display_name) == ({}, "", "new")


def test_what_is_deleted_is_gone(client: Client) -> None:
    cache = client.caches.create(DOCUMENT)
    receipt = client.caches.delete(cache)
    assert receipt.confirmed == (Tier.DEVICE,) and receipt.unreachable == ()
    with pytest.raises(CacheNotFound):
        client.caches.get(cache)
    with pytest.raises(CacheNotFound):
        client.caches.delete(cache)
    assert client.caches.delete(cache, allow_missing=True).confirmed == ()


def test_what_expires_is_told_apart() -> None:
    now = [1_000_000.0]
    with InProcessServer(clock=lambda: now[0]) as server, server.client() as client:
        cache = client.caches.create(DOCUMENT, ttl=10)
        now[0] += 11
        with pytest.raises(CacheExpired) as raised:
            client.caches.get(cache)
        assert isinstance(raised.value, CacheNotFound)
        assert list(client.caches.list()) == []


def test_a_made_up_page_token_is_refused(client: Client, server: InProcessServer) -> None:
    from windowkv_client import _calls, _flows, _replies

    call = _calls.list_caches(None, 10, "garbage", 5.0)
    with pytest.raises(BadPageToken):
        client._transport.run(_flows.ask_once(call, client._policy, _replies.read_page))


def test_the_model_is_shown(client: Client) -> None:
    model = client.models.get()
    assert (model.name, model.vocab_size, model.window_size) == ("copying", 257, 16)
    assert model.methods == ("windowkv",)


@pytest.mark.parametrize("text", ["plain", "naïve ünïcode", "日本語 🎉", "\n\t", "a" * 5000])
def test_text_survives_the_tokenizer(client: Client, text: str) -> None:
    token_ids = client.models.tokenize(text)
    assert client.models.detokenize(token_ids) == text
    assert client.models.count_tokens(text) == len(token_ids)


def test_health_tells_serving_model_and_worker(client: Client, server: InProcessServer) -> None:
    health = client.health()
    assert health.is_serving and health.model == client.models.get()
    assert health.worker is not None and health.worker.is_ready
    server.set_serving(False)
    assert not client.health().is_serving


def test_a_token_opens_the_door() -> None:
    with InProcessServer(token="secret") as server:
        with server.client() as client:
            client.models.get()
        for wrong in ("", "guess"):
            with server.client(token=wrong) as client, pytest.raises(Unauthenticated):
                client.models.get()


def test_closing_twice_is_no_mistake(server: InProcessServer) -> None:
    client = server.client()
    client.close()
    client.close()


def test_a_cache_holds_no_connection(shelved: Cache) -> None:
    with pytest.raises(AttributeError):
        shelved.name = "other"  # type: ignore[misc]
    assert hash(shelved.name)
