"""What an answer consists of: where it stops, what its text is, what it says of its tokens, and how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import Answered, answer, asking, random_tokens
from held_worker import held
from reference_generation import plain_generate
from running_service import RunningService, running
from tiny_models import save_tiny_model
from transformers import AutoModelForCausalLM

from windowkv_client import Client

WINDOW = 8
QUESTION = random_tokens(2, 9)
PROMPT = random_tokens(3, 9)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def module(model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def worker(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=WINDOW, chunk_tokens=32, device_tier_bytes=1 << 22) as service:
        yield service


@pytest.fixture
def client(worker: RunningService) -> Iterator[Client]:
    with asking(worker) as client:
        yield client


def greedy(module: Any, token_ids: list[int], max_tokens: int, **options: Any) -> list[int]:
    """What transformers answers under the same options."""
    ids = torch.tensor([token_ids])
    options = {"eos_token_id": None, **options}
    with torch.inference_mode():
        output = module.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            do_sample=False,
            pad_token_id=0,
            **options,
        )
    return output[0, len(token_ids) :].tolist()


# Length


@pytest.mark.parametrize("length", range(WINDOW * 2, WINDOW * 3 + 1))
def test_an_answer_is_right_whatever_fills_the_last_block_when_it_begins(
    client: Client, model: Path, length: int
) -> None:
    document, question = random_tokens(length, length), random_tokens(50 + length, 5)
    cache = client.caches.create(token_ids=document, kept_ratio=1.0)
    for new in ([], question):
        said = answer(client, new, cache, max_tokens=2 * WINDOW + 3)
        assert said.token_ids == plain_generate(model, document + new, 2 * WINDOW + 3)


def test_an_answer_of_hundreds_of_tokens_is_right(client: Client, model: Path) -> None:
    said = answer(client, QUESTION, max_tokens=400)
    assert said.token_ids == plain_generate(model, QUESTION, 400)
    assert said.finish_reason == "length"


def test_an_answer_ends_where_the_model_does(client: Client) -> None:
    prompt = random_tokens(3, 500)
    said = answer(client, prompt, max_tokens=1000)
    assert (len(said.token_ids), said.finish_reason) == (12, "length")
    assert len(answer(client, prompt + random_tokens(4, 11), max_tokens=1000).token_ids) == 1


def test_pieces_come_in_order_and_make_up_the_whole(client: Client) -> None:
    with client.generate(token_ids=QUESTION, max_tokens=100, ignore_eos=True) as stream:
        pieces = list(stream)
    assert [piece.index for piece in pieces] == sorted(piece.index for piece in pieces)
    places = [piece.index + n for piece in pieces for n in range(len(piece.token_ids))]
    assert places == list(range(100))
    assert "".join(piece.text for piece in pieces) == stream.text
    assert [piece.usage is None for piece in pieces] == [True] * (len(pieces) - 1) + [False]


# Stopping


@pytest.fixture(scope="module")
def plain(worker: RunningService) -> Answered:
    """The whole answer to PROMPT, to stop in the middle of."""
    with asking(worker) as client:
        said = answer(client, PROMPT, max_tokens=80)
    assert len(set(said.text)) > 20, "there is hardly any text to stop at"
    return said


def ask_plain(client: Client, **options: Any) -> Answered:
    return answer(client, PROMPT, **{"max_tokens": 80, **options})


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("place", [0, 7, 20])
def test_a_stop_string_ends_the_answer_before_it(
    client: Client, plain: Answered, place: int, size: int
) -> None:
    stop = plain.text[place : place + size]
    said = ask_plain(client, stop=[stop])
    assert said.text == plain.text[: plain.text.find(stop)]
    assert said.finish_reason == "stop"
    assert said.token_ids == plain.token_ids[: len(said.token_ids)]
    assert len(said.token_ids) < 80


def test_the_stop_string_that_comes_first_counts(client: Client, plain: Answered) -> None:
    late, early = plain.text[30:33], plain.text[12:15]
    said = ask_plain(client, stop=[late, "never said", early])
    assert said.text == plain.text[: min(plain.text.find(late), plain.text.find(early))]


def test_the_beginning_of_a_stop_string_that_never_ends_is_said_after_all(
    client: Client, plain: Answered
) -> None:
    said = ask_plain(client, stop=[plain.text[-3:] + "and no more", plain.text[10:12] + "\0\0"])
    assert (said.text, said.token_ids) == (plain.text, plain.token_ids)


def test_a_stop_token_ends_the_answer_and_is_not_in_its_text(client: Client, plain: Answered) -> None:
    stop = plain.token_ids[20]
    first = plain.token_ids.index(stop)
    said = ask_plain(client, stop_token_ids=[stop])
    assert (said.token_ids, said.finish_reason) == (plain.token_ids[: first + 1], "stop")
    assert plain.text.startswith(said.text)


def test_no_stop_counts_before_min_tokens(client: Client, plain: Answered) -> None:
    said = ask_plain(client, stop=[plain.text[0]], min_tokens=40)
    assert len(said.token_ids) >= 40
    assert said.token_ids == plain.token_ids[: len(said.token_ids)]
    assert said.text == plain.text[: len(said.text)]


@pytest.mark.parametrize("min_tokens", [1, 6])
def test_end_tokens_are_not_chosen_before_min_tokens(
    client: Client, module: Any, plain: Answered, min_tokens: int
) -> None:
    stop = plain.token_ids[0]
    said = ask_plain(client, max_tokens=20, min_tokens=min_tokens, stop_token_ids=[stop])
    expected = greedy(module, PROMPT, 20, min_new_tokens=min_tokens, eos_token_id=stop)
    assert said.token_ids == expected
    assert stop not in said.token_ids[:min_tokens]


def test_the_models_own_end_of_sequence_ends_the_answer_unless_it_is_ignored(
    tmp_path: Path, module: Any
) -> None:
    """A model whose end-of-sequence token is the third that it says."""
    said = greedy(module, QUESTION, 10)
    model = save_tiny_model(tmp_path, "llama")
    config = (model / "generation_config.json").read_text().replace("258", str(said[2]))
    (model / "generation_config.json").write_text(config)
    end = said.index(said[2]) + 1
    settings = {"window_size": WINDOW, "device_tier_bytes": 1 << 20}
    with running(model=str(model), **settings) as service, asking(service) as client:
        ended = answer(client, QUESTION, max_tokens=10, ignore_eos=False)
        assert (ended.token_ids, ended.finish_reason) == (said[:end], "stop")
        assert answer(client, QUESTION, max_tokens=10).token_ids == said


# Log-probabilities and penalties


def test_logprobs_are_those_of_a_plain_forward_pass(client: Client, module: Any) -> None:
    with client.generate(token_ids=QUESTION, max_tokens=10, ignore_eos=True, logprobs=5) as stream:
        stream.read()
    ids = [*QUESTION, *stream.token_ids]
    with torch.inference_mode():
        expected = module(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert len(stream.logprobs) == 10
    for place, said in enumerate(stream.logprobs, start=len(QUESTION) - 1):
        assert said.token_id == ids[place + 1]
        assert math.isclose(said.logprob, expected[place, said.token_id], abs_tol=1e-4)
        top = expected[place].topk(5)
        assert [token_id for token_id, _ in said.top] == top.indices.tolist()
        assert torch.allclose(torch.tensor([value for _, value in said.top]), top.values, atol=1e-4)


def test_logprobs_of_no_alternatives_tell_of_the_chosen_token_alone(client: Client) -> None:
    with client.generate(token_ids=QUESTION, max_tokens=3, ignore_eos=True, logprobs=0) as stream:
        stream.read()
    assert [(len(said.top), said.logprob < 0) for said in stream.logprobs] == [(0, True)] * 3


@pytest.mark.parametrize("penalty", [0.5, 1.3, 5.0])
def test_the_repetition_penalty_is_that_of_transformers(client: Client, module: Any, penalty: float) -> None:
    said = answer(client, QUESTION, max_tokens=40, repetition_penalty=penalty)
    assert said.token_ids == greedy(module, QUESTION, 40, repetition_penalty=penalty)


def test_the_repetition_penalty_counts_a_cached_prompt_too(client: Client, module: Any) -> None:
    document = random_tokens(6, 40)
    cache = client.caches.create(token_ids=document, kept_ratio=1.0)
    said = answer(client, QUESTION, cache, max_tokens=20, repetition_penalty=3.0)
    assert said.token_ids == greedy(module, document + QUESTION, 20, repetition_penalty=3.0)


def test_presence_and_frequency_penalties_count_the_answer_alone(client: Client, module: Any) -> None:
    said = answer(client, QUESTION, max_tokens=40, presence_penalty=1.5, frequency_penalty=0.7)
    ids: list[int] = []
    with torch.inference_mode():
        for _ in range(40):
            logits = module(torch.tensor([QUESTION + ids])).logits[0, -1]
            counts = torch.bincount(torch.tensor(ids, dtype=torch.long), minlength=len(logits))
            ids.append(int((logits - 0.7 * counts - 1.5 * (counts > 0)).argmax()))
    assert said.token_ids == ids


# Chance

SAMPLED = {"temperature": 1.0, "top_p": 0.95, "seed": 7, "max_tokens": 40}


def test_the_same_seed_says_the_same_and_another_seed_something_else(client: Client) -> None:
    first = answer(client, QUESTION, **SAMPLED).token_ids
    assert answer(client, QUESTION, **SAMPLED).token_ids == first
    assert answer(client, QUESTION, **{**SAMPLED, "seed": 8}).token_ids != first


def test_a_seed_says_the_same_whoever_shares_the_batch(client: Client, worker: RunningService) -> None:
    cache = client.caches.create(token_ids=random_tokens(8, 90), kept_ratio=1.0)
    seeds = [{**SAMPLED, "seed": seed} for seed in range(5)]
    alone = [answer(client, QUESTION, cache, **sampling).token_ids for sampling in seeds]
    with held(worker) as hold, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(answer, client, QUESTION, cache.name, **sampling) for sampling in seeds]
        for seed in range(3):
            pool.submit(answer, client, random_tokens(20 + seed, 11), max_tokens=30)
        hold.wait_for_calls(8)
        hold.release()
        assert [future.result().token_ids for future in futures] == alone


def test_without_a_seed_chance_is_fresh(client: Client) -> None:
    free = {**SAMPLED, "temperature": 2.0, "top_p": 1.0}
    del free["seed"]
    assert answer(client, QUESTION, **free).token_ids != answer(client, QUESTION, **free).token_ids


@pytest.mark.parametrize(
    "almost_greedy", [{"top_k": 1}, {"temperature": 1e-300}, {"temperature": 1e-4}, {"min_p": 1.0}]
)
def test_chance_with_one_token_to_choose_from_is_greedy(
    client: Client, almost_greedy: dict[str, float]
) -> None:
    expected = answer(client, QUESTION).token_ids
    assert answer(client, QUESTION, **{"temperature": 1.0, **almost_greedy}).token_ids == expected


def test_absurd_but_legal_parameters_still_give_tokens(client: Client) -> None:
    hot = {"temperature": 100.0, "repetition_penalty": 1e-300, "logprobs": 20, "top_p": 1e-9, "min_p": 1.0}
    assert len(answer(client, QUESTION, **hot).token_ids) == 14
    forbidden = {"stop_token_ids": list(range(256)), "min_tokens": 5, "temperature": 1.0}
    assert len(answer(client, QUESTION, **forbidden).token_ids) >= 5
