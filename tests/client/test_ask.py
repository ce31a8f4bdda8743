"""ask: a document and a question go in, an answer comes out, whatever became of the cache in between."""

from __future__ import annotations

import pytest

from windowkv_client import Cache, CacheNotFound, Chunk, Client, InvalidText, Progress
from windowkv_client.testing import InProcessServer

DOCUMENT = "Nobody knows. " * 100


def test_the_first_question_prefills_and_the_second_does_not(client: Client) -> None:
    first, second = client.ask(DOCUMENT, "Who?"), client.ask(DOCUMENT, "Who?")
    assert first.text == second.text == "Ada, naïvely."
    assert first.was_prefilled and not second.was_prefilled
    assert first.cache.name == second.cache.name
    assert second.usage is not None and second.usage.cached_tokens == len(DOCUMENT)


def test_a_document_cached_by_somebody_else_is_reused(client: Client, server: InProcessServer) -> None:
    client.caches.create(DOCUMENT)
    with server.client() as stranger:
        assert not stranger.ask(DOCUMENT, "Who?").was_prefilled


def test_what_every_tier_has_lost_is_prefilled_again(client: Client, server: InProcessServer) -> None:
    client.ask(DOCUMENT, "Who?")
    server.evict()
    again = client.ask(DOCUMENT, "Who?")
    assert again.was_prefilled and again.text == "Ada, naïvely."


def test_an_expired_cache_is_made_again() -> None:
    now = [1_000_000.0]
    with InProcessServer(answers={"Who?": "Ada"}, clock=lambda: now[0]) as server, server.client() as client:
        assert client.ask(DOCUMENT, "Who?", ttl="10s").was_prefilled
        now[0] += 11
        assert client.ask(DOCUMENT, "Who?", ttl="10s").was_prefilled


def test_the_way_of_caching_belongs_to_the_document(client: Client) -> None:
    client.ask(DOCUMENT, "Who?", kept_ratio=0.5)
    assert client.ask(DOCUMENT, "Who?", kept_ratio=0.25).was_prefilled
    assert not client.ask(DOCUMENT, "Who?", kept_ratio=0.5).was_prefilled


def test_a_cache_without_its_document_cannot_be_made_again(client: Client, shelved: Cache) -> None:
    assert client.ask(shelved, "Who?").text == "Ada, naïvely."
    client.caches.delete(shelved)
    with pytest.raises(CacheNotFound):
        client.ask(shelved, "Who?")


def test_progress_and_pieces_can_be_heard(client: Client) -> None:
    progress: list[Progress] = []
    chunks: list[Chunk] = []
    answer = client.ask(DOCUMENT, "Who?", on_progress=progress.append, on_chunk=chunks.append)
    assert progress and "".join(chunk.text for chunk in chunks) == answer.text


def test_a_conversation_is_a_document_too(client: Client) -> None:
    document = [{"role": "system", "content": DOCUMENT}]
    question = [{"role": "user", "content": "Who?"}]
    assert client.ask(document, question).text == client.ask(document, "Who?").text == "Ada, naïvely."


def test_a_model_without_a_chat_template_gets_the_bare_question(
    client: Client, server: InProcessServer
) -> None:
    server.fail_next(InvalidText("no chat template", field="input.messages"), method="Generate")
    assert client.ask(DOCUMENT, "Who?").text == "Ada, naïvely."


def test_a_conversation_that_is_refused_is_told(client: Client, server: InProcessServer) -> None:
    server.fail_next(InvalidText("no chat template", field="input.messages"), method="Generate")
    with pytest.raises(InvalidText):
        client.ask(DOCUMENT, [{"role": "user", "content": "Who?"}])


def test_an_unknown_option_is_named(client: Client) -> None:
    with pytest.raises(TypeError, match="temprature"):
        client.ask(DOCUMENT, "Who?", temprature=1.0)  # type: ignore[call-arg]
    assert list(client.caches.list()) == []
