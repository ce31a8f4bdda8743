"""An answer as a stream: pieces, the whole, and what happens to one that nobody wants any more."""

from __future__ import annotations

import threading

import pytest

from windowkv_client import Cache, CacheNotFound, Client, DeadlineExceeded, FinishReason, Tier
from windowkv_client.testing import InProcessServer

QUESTION = "The code of Bob is"


def test_pieces_join_to_the_answer(client: Client, shelved: Cache) -> None:
    with client.generate(shelved, QUESTION) as answer:
        chunks = list(answer)
    assert "".join(chunk.text for chunk in chunks) == answer.text == " 5678."
    assert sum((chunk.token_ids for chunk in chunks), ()) == answer.token_ids
    assert [chunk.index for chunk in chunks] == [0, 1, 2, 3, 4, 5, 6]


def test_the_end_tells_reason_and_usage(client: Client, shelved: Cache) -> None:
    answer = client.generate(shelved.name, QUESTION)
    assert answer.finish_reason is None and answer.usage is None
    assert answer.read() == " 5678."
    assert answer.finish_reason is FinishReason.STOP
    assert answer.usage is not None
    assert answer.usage.cached_tokens == shelved.token_count
    assert answer.usage.source_tier is Tier.DEVICE
    assert answer.usage.generated_tokens == len(answer.token_ids) == 6


def test_max_tokens_ends_an_answer(client: Client, shelved: Cache) -> None:
    answer = client.generate(shelved, QUESTION, max_tokens=3)
    assert answer.read() == " 56"
    assert answer.finish_reason is FinishReason.LENGTH


def test_without_a_cache_the_input_is_the_prompt(client: Client) -> None:
    answer = client.generate(text="one two one")
    assert answer.read().startswith(" two")
    assert answer.usage is not None and answer.usage.source_tier is None


def test_a_character_is_never_cut_in_two(client: Client, shelved: Cache) -> None:
    with client.generate(shelved, "Who?") as answer:
        texts = [chunk.text for chunk in answer]
    assert "ï" in texts and "\ufffd" not in "".join(texts)
    assert "".join(texts) == "Ada, naïvely."


def test_leaving_the_with_cancels(client: Client, shelved: Cache) -> None:
    with client.generate(shelved, QUESTION) as answer:
        next(answer)
    assert answer.text == " "
    assert list(answer) == []
    assert answer.finish_reason is None


def test_cancel_from_another_thread_ends_the_iteration(client: Client, shelved: Cache) -> None:
    with client.generate(shelved, QUESTION) as answer:
        next(answer)
        threading.Thread(target=answer.cancel).start()
        assert len(list(answer)) <= 6
    answer.cancel()


def test_logprobs_come_one_per_token(client: Client, shelved: Cache) -> None:
    answer = client.generate(shelved, QUESTION, logprobs=1)
    answer.read()
    assert [each.token_id for each in answer.logprobs] == list(answer.token_ids)


def test_an_unknown_cache_is_told_at_the_first_piece(client: Client) -> None:
    with client.generate("caches/" + "0" * 40, "x") as answer, pytest.raises(CacheNotFound) as raised:
        next(answer)
    assert raised.value.request_id == answer.request_id
    assert list(answer) == []


def test_there_is_always_a_deadline(client: Client, shelved: Cache, server: InProcessServer) -> None:
    with client.generate(shelved, QUESTION, timeout=1e-6) as answer, pytest.raises(DeadlineExceeded):
        next(answer)
