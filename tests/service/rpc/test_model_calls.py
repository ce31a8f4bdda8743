"""ModelService."""

from __future__ import annotations

from byte_tokenizer import BEGIN
from memory_engine import MODEL
from served_wire import ServedWire

from windowkv.v1 import model_pb2, types_pb2

LONG = "wörds " * 1000


async def test_the_model_is_shown_with_all_its_facts(wire: ServedWire) -> None:
    model = (await wire.models.GetModel(model_pb2.GetModelRequest())).model
    names = {field.name for field in model_pb2.Model.DESCRIPTOR.fields}
    assert names == set(type(MODEL).__dataclass_fields__)
    for name in names - {"methods", "default_codec"}:
        assert getattr(model, name) == getattr(MODEL, name), name
    assert tuple(model.methods) == MODEL.methods
    assert types_pb2.Codec.Name(model.default_codec) == f"CODEC_{MODEL.default_codec.name}"


async def test_the_workers_status_is_shown(wire: ServedWire) -> None:
    status = (await wire.models.GetModel(model_pb2.GetModelRequest())).status
    device, redis = status.tiers
    assert (status.is_ready, status.is_draining) == (True, False)
    assert (status.running_count, status.waiting_count) == (1, 2)
    assert status.heartbeat_age.ToMilliseconds() == 500
    assert device == model_pb2.TierStatus(
        tier=types_pb2.TIER_DEVICE, health=model_pb2.TIER_HEALTH_UP, capacity_bytes=1000, used_bytes=10
    )
    assert (redis.tier, redis.health) == (types_pb2.TIER_REDIS, model_pb2.TIER_HEALTH_ABSENT)


async def test_tokens_are_counted_as_a_cache_would_hold_them(wire: ServedWire) -> None:
    request = model_pb2.CountTokensRequest(input=types_pb2.Input(text="abc"), model="tiny")
    assert (await wire.models.CountTokens(request)).token_count == 4


async def test_text_is_tokenized_with_special_tokens_unless_told_otherwise(wire: ServedWire) -> None:
    for asked, expected in ((None, [BEGIN, 97]), (True, [BEGIN, 97]), (False, [97])):
        request = model_pb2.TokenizeRequest(input=types_pb2.Input(text="a"), add_special_tokens=asked)
        assert list((await wire.models.Tokenize(request)).token_ids) == expected


async def test_text_comes_back_whole(wire: ServedWire) -> None:
    tokenize = model_pb2.TokenizeRequest(input=types_pb2.Input(text=LONG), add_special_tokens=False)
    token_ids = (await wire.models.Tokenize(tokenize)).token_ids
    answer = await wire.models.Detokenize(model_pb2.DetokenizeRequest(token_ids=token_ids))
    assert answer.text == LONG
