"""Every mistake that the wire room finds by itself: its status, its stable reason and the field to blame.

Nothing of it reaches the engine.
"""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from refusals import Refusal, refusal_of
from served_wire import ServedWire

from windowkv.v1 import cache_pb2, generation_pb2, model_pb2, types_pb2

NAME = f"caches/{'a' * 40}"
TEXT = types_pb2.Input(text="hi")
MANY = {f"k{number}": "" for number in range(65)}


def tokens(*ids: int) -> types_pb2.Input:
    return types_pb2.Input(token_ids=types_pb2.TokenIds(token_ids=ids))


def chat(**message: str) -> types_pb2.Input:
    return types_pb2.Input(messages=types_pb2.ChatMessages(messages=[types_pb2.ChatMessage(**message)]))


NO_FORM = types_pb2.Input()
NO_TEXT = types_pb2.Input(text="")
NO_MESSAGES = types_pb2.Input(messages=types_pb2.ChatMessages())
NO_TOKENS = tokens()

EMPTY = [
    (None, "input"),
    (NO_FORM, "input"),
    (NO_TEXT, "input.text"),
    (NO_MESSAGES, "input.messages"),
    (NO_TOKENS, "input.token_ids"),
]
BAD_INPUTS = [
    (tokens(1, 300), "TOKEN_OUT_OF_VOCABULARY", "input.token_ids[1]"),
    (tokens(2**32 - 1), "TOKEN_OUT_OF_VOCABULARY", "input.token_ids[0]"),
    (chat(content="no role"), "BAD_OPTION", "input.messages.messages[0].role"),
    (chat(role="tyrant", content="x"), "INVALID_TEXT", "input.messages"),
]
BAD_CACHES: list[tuple[dict[str, Any], str, str]] = [
    ({"compression": cache_pb2.Compression(method="magic")}, "UNKNOWN_METHOD", "cache.compression.method"),
    *(
        (
            {"compression": cache_pb2.Compression(kept_ratio=ratio)},
            "BAD_BUDGET",
            "cache.compression.kept_ratio",
        )
        for ratio in (0.0, -0.1, 1.0001, math.nan, math.inf)
    ),
    ({"compression": {"task": 99}}, "BAD_OPTION", "cache.compression.task"),
    ({"compression": {"codec": 99}}, "BAD_OPTION", "cache.compression.codec"),
    ({"compression": {"retention": 99}}, "BAD_OPTION", "cache.compression.retention"),
    ({"durability": 99}, "BAD_OPTION", "cache.durability"),
    ({"ttl": Duration(seconds=0)}, "BAD_TTL", "cache.ttl"),
    ({"ttl": Duration(seconds=-5)}, "BAD_TTL", "cache.ttl"),
    ({"ttl": Duration(seconds=2**62)}, "BAD_TTL", "cache.ttl"),
    ({"expire_time": Timestamp(seconds=int(time.time()) - 60)}, "BAD_TTL", "cache.expire_time"),
    ({"display_name": "x" * 129}, "BAD_OPTION", "cache.display_name"),
    ({"display_name": "a\nb"}, "BAD_OPTION", "cache.display_name"),
    ({"alias": "Upper"}, "BAD_NAME", "cache.alias"),
    ({"alias": "x" * 65}, "BAD_NAME", "cache.alias"),
    ({"alias": "aliases/x"}, "BAD_NAME", "cache.alias"),
    ({"labels": {"Upper": "v"}}, "BAD_OPTION", "cache.labels"),
    ({"labels": {"": "v"}}, "BAD_OPTION", "cache.labels"),
    ({"labels": {"k": "v" * 129}}, "BAD_OPTION", "cache.labels"),
    ({"labels": {"k": "\x00"}}, "BAD_OPTION", "cache.labels"),
    ({"labels": MANY}, "BAD_OPTION", "cache.labels"),
]
BAD_SAMPLINGS: list[tuple[str, Any]] = [
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("max_tokens", 2**31 - 1),
    ("min_tokens", -1),
    ("min_tokens", 129),
    ("temperature", -0.1),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("top_p", math.nan),
    ("top_k", -1),
    ("min_p", -0.1),
    ("min_p", 2.0),
    ("repetition_penalty", 0.0),
    ("presence_penalty", 2.1),
    ("frequency_penalty", -2.1),
    ("seed", -1),
    ("stop", [""]),
    ("stop", ["x"] * 17),
    ("logprobs", -1),
    ("logprobs", 21),
]
BAD_NAMES = [
    "",
    "caches/",
    "caches/short",
    f"caches/{'A' * 40}",
    f"caches/{'a' * 41}",
    f"{NAME}\n",
    "aliases/",
    "aliases/Upper",
    "a" * 40,
    "../etc",
]
BAD_UPDATES: list[tuple[dict[str, Any], list[str] | None, str, str]] = [
    ({}, None, "BAD_UPDATE_MASK", "update_mask"),
    ({"model": "x"}, None, "BAD_UPDATE_MASK", "update_mask"),
    ({"pinned": True}, ["compression"], "BAD_UPDATE_MASK", "update_mask"),
    ({"pinned": True}, ["pinned", "*"], "BAD_UPDATE_MASK", "update_mask"),
    ({}, ["labels.k"], "BAD_UPDATE_MASK", "update_mask"),
    ({}, ["ttl"], "BAD_TTL", "cache.ttl"),
    ({"ttl": Duration(seconds=-1)}, ["ttl"], "BAD_TTL", "cache.ttl"),
    ({"alias": "Upper"}, ["alias"], "BAD_NAME", "cache.alias"),
    ({"labels": {"Upper": ""}}, ["labels"], "BAD_OPTION", "cache.labels"),
    ({"display_name": "x" * 129}, None, "BAD_OPTION", "cache.display_name"),
]


async def create(wire: ServedWire, **fields: Any) -> Refusal:
    return await refused(wire, wire.caches.CreateCache(cache_pb2.CreateCacheRequest(**fields)).read())


async def generate(wire: ServedWire, **fields: Any) -> Refusal:
    return await refused(wire, wire.generation.Generate(generation_pb2.GenerateRequest(**fields)).read())


async def refused(wire: ServedWire, call: Any) -> Refusal:
    refusal = await refusal_of(call)
    assert refusal.domain == "windowkv"
    assert refusal.message
    assert wire.engine.requests == []
    return refusal


def blame(refusal: Refusal) -> tuple[str, str, str | None]:
    return refusal.code, refusal.reason, refusal.field


@pytest.mark.parametrize(("input", "field"), EMPTY)
async def test_an_empty_prompt_is_refused(
    wire: ServedWire, input: types_pb2.Input | None, field: str
) -> None:
    expected = ("INVALID_ARGUMENT", "EMPTY_PROMPT", field)
    assert blame(await create(wire, input=input)) == expected
    assert blame(await generate(wire, input=input)) == expected
    for method, message in (
        (wire.models.CountTokens, model_pb2.CountTokensRequest(input=input)),
        (wire.models.Tokenize, model_pb2.TokenizeRequest(input=input)),
    ):
        assert blame(await refused(wire, method(message))) == expected


@pytest.mark.parametrize(("input", "reason", "field"), BAD_INPUTS)
async def test_an_unusable_input_is_refused(
    wire: ServedWire, input: types_pb2.Input, reason: str, field: str
) -> None:
    expected = ("INVALID_ARGUMENT", reason, field)
    assert blame(await create(wire, input=input)) == expected
    assert blame(await generate(wire, input=input)) == expected
    assert blame(await generate(wire, input=input, cache=NAME)) == expected


@pytest.mark.parametrize(("cache", "reason", "field"), BAD_CACHES)
async def test_a_bad_cache_is_refused(
    wire: ServedWire, cache: dict[str, Any], reason: str, field: str
) -> None:
    refusal = await create(wire, cache=cache_pb2.Cache(**cache), input=TEXT)
    assert blame(refusal) == ("INVALID_ARGUMENT", reason, field)


@pytest.mark.parametrize(("name", "value"), BAD_SAMPLINGS)
async def test_a_sampling_parameter_out_of_range_is_refused(wire: ServedWire, name: str, value: Any) -> None:
    refusal = await generate(wire, input=TEXT, sampling=generation_pb2.Sampling(**{name: value}))
    assert blame(refusal) == ("INVALID_ARGUMENT", "BAD_SAMPLING", f"sampling.{name}")


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.5, math.nan])
async def test_a_bad_budget_of_a_question_is_refused(wire: ServedWire, ratio: float) -> None:
    refusal = await generate(wire, input=TEXT, selection=generation_pb2.Selection(kept_ratio=ratio))
    assert blame(refusal) == ("INVALID_ARGUMENT", "BAD_BUDGET", "selection.kept_ratio")


async def test_an_unknown_way_of_selecting_is_refused(wire: ServedWire) -> None:
    refusal = await generate(wire, input=TEXT, selection={"mode": 99})
    assert blame(refusal) == ("INVALID_ARGUMENT", "BAD_OPTION", "selection.mode")


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_a_malformed_name_is_refused(wire: ServedWire, name: str) -> None:
    get = wire.caches.GetCache(cache_pb2.GetCacheRequest(name=name))
    assert blame(await refused(wire, get)) == ("INVALID_ARGUMENT", "BAD_NAME", "name")
    delete = wire.caches.DeleteCache(cache_pb2.DeleteCacheRequest(name=name, allow_missing=True))
    assert blame(await refused(wire, delete)) == ("INVALID_ARGUMENT", "BAD_NAME", "name")
    update = wire.caches.UpdateCache(
        cache_pb2.UpdateCacheRequest(cache=cache_pb2.Cache(name=name, pinned=True))
    )
    assert blame(await refused(wire, update)) == ("INVALID_ARGUMENT", "BAD_NAME", "cache.name")
    if name:  # empty is a question without a cache
        refusal = await generate(wire, input=TEXT, cache=name)
        assert blame(refusal) == ("INVALID_ARGUMENT", "BAD_NAME", "cache")


@pytest.mark.parametrize(("cache", "mask", "reason", "field"), BAD_UPDATES)
async def test_a_bad_update_is_refused(
    wire: ServedWire, cache: dict[str, Any], mask: list[str] | None, reason: str, field: str
) -> None:
    request = cache_pb2.UpdateCacheRequest(
        cache=cache_pb2.Cache(name=NAME, **cache),
        update_mask=None if mask is None else FieldMask(paths=mask),
    )
    refusal = await refused(wire, wire.caches.UpdateCache(request))
    assert blame(refusal) == ("INVALID_ARGUMENT", reason, field)


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        ({"label_filter": {"Upper": ""}}, "BAD_FILTER", "label_filter"),
        ({"label_filter": {"k": "v" * 129}}, "BAD_FILTER", "label_filter"),
        ({"label_filter": MANY}, "BAD_FILTER", "label_filter"),
    ],
)
async def test_a_bad_list_is_refused(
    wire: ServedWire, request_: dict[str, Any], reason: str, field: str
) -> None:
    refusal = await refused(wire, wire.caches.ListCaches(cache_pb2.ListCachesRequest(**request_)))
    assert blame(refusal) == ("INVALID_ARGUMENT", reason, field)


async def test_another_model_is_refused_by_every_call_that_names_one(wire: ServedWire) -> None:
    models = wire.models
    expected = ("FAILED_PRECONDITION", "MODEL_MISMATCH", "model")
    assert blame(await generate(wire, input=TEXT, model="other")) == expected
    for method, message in (
        (models.GetModel, model_pb2.GetModelRequest(model="other")),
        (models.CountTokens, model_pb2.CountTokensRequest(model="other", input=TEXT)),
        (models.Tokenize, model_pb2.TokenizeRequest(model="other", input=TEXT)),
        (models.Detokenize, model_pb2.DetokenizeRequest(model="other", token_ids=[1])),
    ):
        assert blame(await refused(wire, method(message))) == expected
    refusal = await create(wire, input=TEXT, cache=cache_pb2.Cache(model="other"))
    assert blame(refusal) == ("FAILED_PRECONDITION", "MODEL_MISMATCH", "cache.model")


async def test_unknown_tokens_are_not_detokenized(wire: ServedWire) -> None:
    request = model_pb2.DetokenizeRequest(token_ids=[1, 2, 300])
    refusal = await refused(wire, wire.models.Detokenize(request))
    assert blame(refusal) == ("INVALID_ARGUMENT", "TOKEN_OUT_OF_VOCABULARY", "token_ids[2]")


@pytest.mark.parametrize("request_id", ["x" * 129, "zwölf", "a\tb"])
async def test_a_request_id_that_would_spoil_a_log_is_refused(wire: ServedWire, request_id: str) -> None:
    refusal = await generate(wire, input=TEXT, request_id=request_id)
    assert blame(refusal) == ("INVALID_ARGUMENT", "BAD_OPTION", "request_id")


async def test_a_refusal_never_quotes_at_length(wire: ServedWire) -> None:
    """Statuses are metadata: a long one would be refused itself, and prompts do not belong in it."""
    refusal = await generate(wire, input=TEXT, sampling=generation_pb2.Sampling(stop=["x" * 100_000] * 17))
    assert blame(refusal) == ("INVALID_ARGUMENT", "BAD_SAMPLING", "sampling.stop")
    assert len(refusal.message) <= 300
