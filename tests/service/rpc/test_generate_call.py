"""Generate: what the engine is asked, and what the caller gets."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from byte_tokenizer import BEGIN
from memory_engine import ANSWER, USAGE
from served_wire import ServedWire

from windowkv.v1 import generation_pb2, types_pb2
from windowkv_service.domain.requests import GenerateRequest, QuestionSelection, Sampling
from windowkv_service.domain.results import FinishReason, MissReason

SAMPLING: dict[str, Any] = {
    "max_tokens": 7,
    "min_tokens": 2,
    "temperature": 0.5,
    "top_p": 0.25,
    "top_k": 5,
    "min_p": 0.125,
    "repetition_penalty": 1.5,
    "presence_penalty": -0.5,
    "frequency_penalty": 0.75,
    "seed": 2**62,
    "stop": ("\n", "end"),
    "stop_token_ids": (3, 4),
    "ignore_eos": True,
    "logprobs": 0,
}


def text(value: str) -> types_pb2.Input:
    return types_pb2.Input(text=value)


def chat(*turns: tuple[str, str]) -> types_pb2.Input:
    messages = [types_pb2.ChatMessage(role=role, content=content) for role, content in turns]
    return types_pb2.Input(messages=types_pb2.ChatMessages(messages=messages))


def token_ids(*ids: int) -> types_pb2.Input:
    return types_pb2.Input(token_ids=types_pb2.TokenIds(token_ids=ids))


async def ask(wire: ServedWire, **fields: Any) -> list[generation_pb2.GenerateResponse]:
    return [piece async for piece in wire.generation.Generate(generation_pb2.GenerateRequest(**fields))]


async def asked(wire: ServedWire, **fields: Any) -> GenerateRequest:
    """What the engine was asked."""
    await ask(wire, **fields)
    request = wire.engine.requests[-1]
    assert isinstance(request, GenerateRequest)
    return request


async def test_what_is_absent_takes_the_domains_defaults(wire: ServedWire) -> None:
    request = await asked(wire, input=text("hi"))
    assert request == GenerateRequest(request.request_id, "default", (BEGIN, 104, 105))


async def test_every_sampling_parameter_arrives(wire: ServedWire) -> None:
    request = await asked(wire, input=text("hi"), sampling=generation_pb2.Sampling(**SAMPLING))
    assert request.sampling == Sampling(**SAMPLING)


def test_sampling_has_the_same_fields_on_the_wire_and_in_the_domain() -> None:
    on_the_wire = {field.name for field in generation_pb2.Sampling.DESCRIPTOR.fields}
    assert on_the_wire == set(Sampling.__dataclass_fields__) == set(SAMPLING)


async def test_an_explicit_zero_is_not_an_absent_value(wire: ServedWire) -> None:
    sampling = generation_pb2.Sampling(temperature=0.0, seed=0, logprobs=0, top_k=0)
    request = await asked(wire, input=text("hi"), sampling=sampling)
    assert (request.sampling.seed, request.sampling.logprobs) == (0, 0)


@pytest.mark.parametrize("mode", QuestionSelection)
async def test_selection_options_arrive(wire: ServedWire, mode: QuestionSelection) -> None:
    number = generation_pb2.QuestionSelection.Value(f"QUESTION_SELECTION_{mode.name}")
    selection = generation_pb2.Selection(mode=number, kept_ratio=0.5, min_fidelity=0.9, reselect_every=0)
    request = await asked(wire, input=text("hi"), selection=selection)
    assert (request.selection, request.kept_ratio) == (mode, 0.5)
    assert (request.min_fidelity, request.reselect_every) == (0.9, 0)


@pytest.mark.parametrize(
    ("input", "on_its_own", "on_a_cache"),
    [
        (text("é"), [BEGIN, 195, 169], [195, 169]),
        (
            chat(("user", "a")),
            [BEGIN, *b"user:a\nassistant:"],
            [*b"user:a\nassistant:"],
        ),
        (token_ids(1, 299), [1, 299], [1, 299]),
    ],
    ids=["text", "messages", "token_ids"],
)
async def test_input_on_a_cache_is_a_continuation(
    wire: ServedWire, input: types_pb2.Input, on_its_own: list[int], on_a_cache: list[int]
) -> None:
    cache = await wire.create()
    assert list((await asked(wire, input=input)).token_ids) == on_its_own
    request = await asked(wire, input=input, cache=cache.name)
    assert (list(request.token_ids), request.cache) == (on_a_cache, cache.name)


async def test_a_long_text_is_tokenized_like_a_short_one(wire: ServedWire) -> None:
    long = "long " * 2000
    assert list((await asked(wire, input=text(long))).token_ids) == [BEGIN, *long.encode()]


async def test_a_cache_is_asked_without_input(wire: ServedWire) -> None:
    cache = await wire.create(alias="contract")
    request = await asked(wire, cache="aliases/contract")
    assert (request.token_ids, request.cache, cache.alias) == ((), "aliases/contract", "contract")


async def test_pieces_arrive_one_by_one_with_the_end_on_the_last(wire: ServedWire) -> None:
    first, last = await ask(wire, input=text("hi"))
    assert (first.index, first.text, list(first.token_ids)) == (0, "h", [104])
    assert first.finish_reason == generation_pb2.FINISH_REASON_UNSPECIFIED
    assert not first.HasField("usage")
    assert (last.index, last.text, list(last.token_ids)) == (1, "i", [105])
    assert last.finish_reason == generation_pb2.FINISH_REASON_STOP


async def test_log_probabilities_arrive(wire: ServedWire) -> None:
    [logprob] = (await ask(wire, input=text("hi")))[0].logprobs
    assert (logprob.token_id, logprob.logprob) == (104, -0.5)
    assert [(top.token_id, top.logprob) for top in logprob.top] == [(104, -0.5), (7, -2.0)]


async def test_usage_arrives_whole(wire: ServedWire) -> None:
    usage = (await ask(wire, input=text("hi")))[-1].usage
    plain = (
        "prompt_tokens",
        "cached_tokens",
        "kept_tokens",
        "generated_tokens",
        "fidelity",
        "blocks_fetched",
    )
    for name in (*plain, "bytes_fetched", "device_bytes", "tail_bytes", "selections", "is_recomputed"):
        assert getattr(usage, name) == getattr(USAGE, name), name
    assert usage.source_tier == types_pb2.TIER_REDIS
    assert usage.miss_reason == generation_pb2.MISS_REASON_UNSPECIFIED
    assert not usage.HasField("diverged_at")
    assert usage.time_to_first_token.ToMilliseconds() == 250
    assert usage.queue_duration.ToMilliseconds() == 125
    assert usage.fetch_duration.ToMicroseconds() == 62_500


async def test_a_miss_and_where_it_began_arrive(wire: ServedWire) -> None:
    usage = replace(
        USAGE, source_tier=None, miss_reason=MissReason.TOKENS_DIVERGED, diverged_at=0, is_recomputed=True
    )
    wire.engine.answer = (replace(ANSWER[-1], usage=usage, finish_reason=FinishReason.LENGTH),)
    [last] = await ask(wire, input=text("hi"))
    assert last.usage.source_tier == types_pb2.TIER_UNSPECIFIED
    assert last.usage.miss_reason == generation_pb2.MISS_REASON_TOKENS_DIVERGED
    assert last.usage.HasField("diverged_at")
    assert last.usage.is_recomputed
    assert last.finish_reason == generation_pb2.FINISH_REASON_LENGTH


def test_every_field_of_usage_is_on_the_wire() -> None:
    """Durations lose their unit, which their type has."""
    renamed = {
        "time_to_first_token_s": "time_to_first_token",
        "queue_s": "queue_duration",
        "fetch_s": "fetch_duration",
    }
    on_the_wire = {field.name for field in generation_pb2.Usage.DESCRIPTOR.fields}
    assert on_the_wire == {renamed.get(name, name) for name in type(USAGE).__dataclass_fields__}


async def test_the_deadline_arrives_on_the_monotonic_clock(wire: ServedWire) -> None:
    call = wire.generation.Generate(generation_pb2.GenerateRequest(input=text("hi")), timeout=1000)
    assert [piece async for piece in call]
    request = wire.engine.requests[-1]
    assert isinstance(request, GenerateRequest)
    assert request.deadline == pytest.approx(time.monotonic() + 1000, abs=60)


async def test_the_served_model_may_be_named_by_name_or_digest(wire: ServedWire) -> None:
    for model in (wire.engine.model.name, wire.engine.model.digest):
        assert await ask(wire, input=text("hi"), model=model)
