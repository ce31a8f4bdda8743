"""A stream that breaks goes on by itself where the answer can be repeated; nothing is told twice."""

from __future__ import annotations

import pytest

from windowkv_client import Cache, Client, Draining, InternalError, RetryPolicy, Unavailable
from windowkv_client.testing import InProcessServer

ANSWER = " 5678."
QUESTION = "The code of Bob is"


def ask(client: Client, cache: Cache, **options: object) -> tuple[list[str], list[int]]:
    with client.generate(cache, QUESTION, **options) as answer:
        chunks = list(answer)
    assert "".join(chunk.text for chunk in chunks) == answer.text
    assert [chunk.index for chunk in chunks if chunk.token_ids] == list(range(len(answer.token_ids)))
    assert answer.finish_reason is not None and answer.usage is not None
    return [chunk.text for chunk in chunks], list(answer.token_ids)


@pytest.mark.parametrize("after", range(8))
@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "seed": 3}], ids=["greedy", "seeded"])
def test_a_broken_stream_goes_on_without_a_seam(
    client: Client, shelved: Cache, server: InProcessServer, after: int, options: dict[str, float]
) -> None:
    whole = ask(client, shelved, **options)
    server.fail_next(Unavailable("the worker went away"), method="Generate", after=after)
    assert ask(client, shelved, **options) == whole


def test_it_goes_on_after_several_breaks(client: Client, shelved: Cache, server: InProcessServer) -> None:
    for after in (2, 0, 4):
        server.fail_next(Draining("going"), method="Generate", after=after)
    assert "".join(ask(client, shelved)[0]) == ANSWER


def test_stop_strings_hold_over_a_break(client: Client, shelved: Cache, server: InProcessServer) -> None:
    server.fail_next(Unavailable("gone"), method="Generate", after=3)
    assert "".join(ask(client, shelved, stop=["78"])[0]) == " 56"


def test_logprobs_are_told_once(client: Client, shelved: Cache, server: InProcessServer) -> None:
    server.fail_next(Unavailable("gone"), method="Generate", after=3)
    with client.generate(shelved, QUESTION, logprobs=0) as answer:
        answer.read()
    assert [each.token_id for each in answer.logprobs] == list(answer.token_ids)


def test_breaks_without_end_are_told(shelved: Cache, server: InProcessServer) -> None:
    with server.client(retry=RetryPolicy(max_attempts=3, first_wait_s=0.001)) as client:
        for _ in range(3):
            server.fail_next(Unavailable("gone"), method="Generate", after=2)
        with client.generate(shelved, QUESTION) as answer, pytest.raises(Unavailable):
            answer.read()
        assert answer.text == " 5"


def test_chance_without_a_seed_cannot_be_repeated(
    client: Client, shelved: Cache, server: InProcessServer
) -> None:
    server.fail_next(Unavailable("gone"), method="Generate", after=2)
    with client.generate(shelved, QUESTION, temperature=0.7) as answer, pytest.raises(Unavailable):
        answer.read()
    assert answer.text == " 5"


def test_chance_without_a_seed_may_start_over_while_nothing_was_told(
    client: Client, shelved: Cache, server: InProcessServer
) -> None:
    server.fail_next(Unavailable("gone"), method="Generate")
    assert client.generate(shelved, QUESTION, temperature=0.7).read() == ANSWER


def test_resume_can_be_declined(client: Client, shelved: Cache, server: InProcessServer) -> None:
    server.fail_next(Unavailable("gone"), method="Generate", after=2)
    with client.generate(shelved, QUESTION, resume=False) as answer, pytest.raises(Unavailable):
        answer.read()


def test_other_failures_are_not_resumed(client: Client, shelved: Cache, server: InProcessServer) -> None:
    server.fail_next(InternalError("lost"), method="Generate", after=2)
    with client.generate(shelved, QUESTION) as answer, pytest.raises(InternalError):
        answer.read()


def test_another_answer_is_not_passed_off_as_the_same(server: InProcessServer, client: Client) -> None:
    first = client.caches.create("The code of Bob is 5678.", alias="codes")
    server.fail_next(Unavailable("gone"), method="Generate", after=3)
    with client.generate("aliases/codes", QUESTION) as answer:
        heard = [next(answer).text for _ in range(3)]
        client.caches.delete(first)
        client.caches.create("The code of Bob is 5432.", alias="codes")
        with pytest.raises(Unavailable, match="could not be repeated"):
            answer.read()
    assert "".join(heard) == answer.text == " 56"
