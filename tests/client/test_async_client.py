"""AsyncClient does what Client does. The flows are shared and tested there; here are the loop's own matters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from windowkv_client import AsyncClient, CacheNotFound, Progress, QueueFull, RequestCancelled, Unavailable
from windowkv_client.testing import InProcessServer

DOCUMENT = "The code of Ada is 1234. " * 60


@pytest.fixture
async def client(server: InProcessServer) -> AsyncIterator[AsyncClient]:
    async with server.async_client() as connected:
        yield connected


async def test_a_document_is_cached_and_asked(client: AsyncClient) -> None:
    heard: list[Progress] = []
    cache = await client.caches.create(DOCUMENT, on_progress=heard.append, ttl="1h")
    assert heard and cache.token_count == len(DOCUMENT)
    async with client.generate(cache, "The code of Ada is") as answer:
        texts = [chunk.text async for chunk in answer]
    assert "".join(texts) == answer.text == " 1234."
    assert answer.usage is not None and answer.usage.cached_tokens == cache.token_count


async def test_caches_are_shown_changed_listed_and_forgotten(client: AsyncClient) -> None:
    names = [(await client.caches.create(f"{index} document")).name for index in range(5)]
    assert [cache.name async for cache in client.caches.list(page_size=2)] == names[::-1]
    assert (await client.caches.update(names[0], alias="first")).alias == "first"
    assert (await client.caches.get("aliases/first")).name == names[0]
    assert (await client.caches.delete(names[0])).confirmed
    with pytest.raises(CacheNotFound):
        await client.caches.get(names[0])


async def test_the_model_answers(client: AsyncClient) -> None:
    token_ids = await client.models.tokenize("héllo")
    assert await client.models.detokenize(token_ids) == "héllo"
    assert await client.models.count_tokens("héllo") == len(token_ids)
    assert (await client.models.get()).name == "copying"
    assert (await client.health()).is_serving


async def test_ask_prefills_again(client: AsyncClient, server: InProcessServer) -> None:
    assert (await client.ask(DOCUMENT, "Who?")).was_prefilled
    assert not (await client.ask(DOCUMENT, "Who?")).was_prefilled
    server.evict()
    assert (await client.ask(DOCUMENT, "Who?")).was_prefilled


async def test_a_broken_stream_goes_on(client: AsyncClient, server: InProcessServer) -> None:
    cache = await client.caches.create(DOCUMENT)
    server.fail_next(Unavailable("gone"), method="Generate", after=3)
    assert await client.generate(cache, "The code of Ada is").read() == " 1234."


async def test_a_full_queue_is_waited_for(client: AsyncClient, server: InProcessServer) -> None:
    server.fail_next(QueueFull("full", retry_after_s=0.01))
    assert (await client.models.get()).name == "copying"


async def test_leaving_the_with_cancels(client: AsyncClient) -> None:
    cache = await client.caches.create(DOCUMENT)
    async with client.generate(cache, "The code of Ada is") as answer:
        await anext(answer)
    assert answer.text == " "
    assert [chunk async for chunk in answer] == []


async def test_a_cancelled_task_is_cancelled_and_not_told_otherwise(client: AsyncClient) -> None:
    cache = await client.caches.create(DOCUMENT)
    begun = asyncio.Event()

    async def read() -> None:
        async with client.generate(cache, "The code of Ada is") as answer:
            async for _ in answer:
                begun.set()
                await asyncio.sleep(30)

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_cancelled_from_below_is_told(client: AsyncClient, server: InProcessServer) -> None:
    server.fail_next(RequestCancelled("the worker gave up"), method="GetModel")
    with pytest.raises(RequestCancelled):
        await client.models.get()


async def test_many_answers_stream_at_once(client: AsyncClient) -> None:
    cache = await client.caches.create(DOCUMENT)

    async def read() -> str:
        return await client.generate(cache, "The code of Ada is").read()

    assert await asyncio.gather(*(read() for _ in range(20))) == [" 1234."] * 20
