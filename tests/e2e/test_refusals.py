"""Bad input to a whole worker: each mistake has its status, stable reason and field, and nothing is lost by it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import aio
from refusals import refusal_of
from running_service import RunningService
from tiny_models import VOCAB_SIZE, save_tiny_model

from windowkv.v1 import (
    cache_pb2,
    cache_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from windowkv.v1.types_pb2 import ChatMessage, ChatMessages, Input, TokenIds
from windowkv_service.config import Settings

MAX_TOKENS = 512
TEXT = Input(text="a document")
INVALID = "INVALID_ARGUMENT"


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def service(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    model = save_tiny_model(tmp_path_factory.mktemp("model"), "llama")
    settings = Settings(listen="127.0.0.1:0", device="cpu", dtype="float32", model=str(model), window_size=8)
    worker = RunningService(settings, clock)
    yield worker
    worker.stop()


@pytest.fixture
async def channel(service: RunningService) -> AsyncIterator[aio.Channel]:
    """After each test the worker still answers, and its books are in order."""
    async with aio.insecure_channel(service.target) as connected:
        yield connected
        sampling = generation_pb2.Sampling(max_tokens=2, ignore_eos=True)
        answer = generate_call(connected, input=TEXT, sampling=sampling)
        assert sum([len(piece.token_ids) async for piece in answer]) == 2
    service.check_integrity()


def tokens(*ids: int) -> Input:
    return Input(token_ids=TokenIds(token_ids=ids))


def generate_call(channel: aio.Channel, **fields: Any) -> Any:
    return generation_pb2_grpc.GenerationServiceStub(channel).Generate(
        generation_pb2.GenerateRequest(**fields)
    )


def create_call(channel: aio.Channel, input: Input, **cache: Any) -> Any:
    request = cache_pb2.CreateCacheRequest(cache=cache_pb2.Cache(**cache), input=input)
    return cache_pb2_grpc.CacheServiceStub(channel).CreateCache(request)


async def create(channel: aio.Channel, input: Input, **cache: Any) -> cache_pb2.Cache:
    return [event async for event in create_call(channel, input, **cache)][-1].created.cache


async def blame(call: Any) -> tuple[str, str, str | None]:
    """Of a stream's first message that is not progress, or of a unary call."""
    refusal = await refusal_of(call.read() if isinstance(call, aio.UnaryStreamCall) else call)
    return refusal.code, refusal.reason, refusal.field


@pytest.mark.parametrize(
    ("input", "expected"),
    [
        (Input(), (INVALID, "EMPTY_PROMPT", "input")),
        (Input(text=""), (INVALID, "EMPTY_PROMPT", "input.text")),
        (tokens(), (INVALID, "EMPTY_PROMPT", "input.token_ids")),
        (Input(text="x" * 5000), (INVALID, "PROMPT_TOO_LONG", "input")),
        (tokens(*[1] * (MAX_TOKENS + 1)), (INVALID, "PROMPT_TOO_LONG", "input")),
        (tokens(1, VOCAB_SIZE), (INVALID, "TOKEN_OUT_OF_VOCABULARY", "input.token_ids[1]")),
    ],
)
async def test_a_bad_prompt_is_refused(
    channel: aio.Channel, input: Input, expected: tuple[str, str, str]
) -> None:
    assert await blame(create_call(channel, input)) == expected
    assert await blame(generate_call(channel, input=input)) == expected


async def test_a_message_of_nobody_is_refused(channel: aio.Channel) -> None:
    chat = Input(messages=ChatMessages(messages=[ChatMessage(content="hi")]))
    expected = (INVALID, "BAD_OPTION", "input.messages.messages[0].role")
    assert await blame(generate_call(channel, input=chat)) == expected


async def test_a_question_that_makes_a_cached_prompt_too_long_is_refused(channel: aio.Channel) -> None:
    cache = await create(channel, tokens(*range(1, 251), *range(1, 251)))
    question = tokens(*range(1, 21))
    expected = (INVALID, "PROMPT_TOO_LONG", "input")
    assert await blame(generate_call(channel, cache=cache.name, input=question)) == expected


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        ({"model": "other"}, ("FAILED_PRECONDITION", "MODEL_MISMATCH", "cache.model")),
        ({"compression": {"kept_ratio": 1.5}}, (INVALID, "BAD_BUDGET", "cache.compression.kept_ratio")),
        ({"compression": {"kept_ratio": 0.0}}, (INVALID, "BAD_BUDGET", "cache.compression.kept_ratio")),
        ({"compression": {"method": "magic"}}, (INVALID, "UNKNOWN_METHOD", "cache.compression.method")),
        ({"ttl": Duration(seconds=-1)}, (INVALID, "BAD_TTL", "cache.ttl")),
        ({"ttl": Duration(seconds=2**60)}, (INVALID, "BAD_TTL", "cache.ttl")),
        ({"alias": "Not An Alias"}, (INVALID, "BAD_NAME", "cache.alias")),
    ],
)
async def test_a_bad_cache_is_refused(
    channel: aio.Channel, cache: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    assert await blame(create_call(channel, TEXT, **cache)) == expected


async def test_a_life_longer_than_the_service_allows_is_shortened(
    channel: aio.Channel, service: RunningService, clock: Clock
) -> None:
    cache = await create(channel, Input(text="for ever"), ttl=Duration(seconds=10**10))
    longest = service.resources.limits.max_ttl_s
    assert cache.expire_time.seconds == int(clock.now + longest)


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", -1.0), ("top_p", 7.0), ("max_tokens", 0), ("max_tokens", -5)]
)
async def test_absurd_sampling_is_refused(channel: aio.Channel, name: str, value: Any) -> None:
    call = generate_call(channel, input=TEXT, sampling=generation_pb2.Sampling(**{name: value}))
    assert await blame(call) == (INVALID, "BAD_SAMPLING", f"sampling.{name}")


@pytest.mark.parametrize("name", [f"caches/{'0' * 40}", "aliases/nobody"])
async def test_an_unknown_name_is_not_found_by_any_call(channel: aio.Channel, name: str) -> None:
    caches = cache_pb2_grpc.CacheServiceStub(channel)
    expected = ("NOT_FOUND", "CACHE_NOT_FOUND")
    update = cache_pb2.UpdateCacheRequest(cache=cache_pb2.Cache(name=name, pinned=True))
    assert await blame(caches.GetCache(cache_pb2.GetCacheRequest(name=name))) == (*expected, "name")
    assert await blame(caches.DeleteCache(cache_pb2.DeleteCacheRequest(name=name))) == (*expected, "name")
    assert await blame(caches.UpdateCache(update)) == (*expected, "cache.name")
    assert await blame(generate_call(channel, cache=name, input=TEXT)) == (*expected, "cache")


async def test_an_expired_name_is_told_apart_from_an_unknown_one(channel: aio.Channel, clock: Clock) -> None:
    cache = await create(channel, Input(text="soon over"), ttl=Duration(seconds=60))
    clock.now += 61
    assert await blame(generate_call(channel, cache=cache.name, input=TEXT)) == (
        "NOT_FOUND",
        "CACHE_EXPIRED",
        "cache",
    )


async def test_page_tokens_of_nobody_and_of_another_list_are_refused(channel: aio.Channel) -> None:
    caches = cache_pb2_grpc.CacheServiceStub(channel)
    for text in ("one", "two"):
        await create(channel, Input(text=text))
    page = await caches.ListCaches(cache_pb2.ListCachesRequest(page_size=1))
    assert page.next_page_token
    expected = (INVALID, "BAD_PAGE_TOKEN", "page_token")
    garbage = cache_pb2.ListCachesRequest(page_token="garbage")
    foreign = cache_pb2.ListCachesRequest(page_token=page.next_page_token, label_filter={"k": "v"})
    assert await blame(caches.ListCaches(garbage)) == expected
    assert await blame(caches.ListCaches(foreign)) == expected
    negative = cache_pb2.ListCachesRequest(page_size=-1)
    assert await blame(caches.ListCaches(negative)) == (INVALID, "BAD_OPTION", "page_size")


async def test_bytes_that_are_not_utf_8_are_refused(channel: aio.Channel) -> None:
    generate = channel.unary_stream("/windowkv.v1.GenerationService/Generate")
    assert await blame(generate(b"\x1a\x04\x0a\x02\xe9\xff")) == (INVALID, "INVALID_TEXT", None)


async def test_any_text_comes_back_from_the_tokenizer(channel: aio.Channel) -> None:
    models, text = model_pb2_grpc.ModelServiceStub(channel), "naïve 🦆 \x00 日本"
    tokenized = await models.Tokenize(
        model_pb2.TokenizeRequest(input=Input(text=text), add_special_tokens=False)
    )
    answer = await models.Detokenize(model_pb2.DetokenizeRequest(token_ids=tokenized.token_ids))
    assert answer.text == text
