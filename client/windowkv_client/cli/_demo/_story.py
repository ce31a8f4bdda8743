"""What the demo does, step by step; who watches is told through a Watcher."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from windowkv_client._client import Client
from windowkv_client._models import Cache, Durability, Retention, Selection, Tier, Usage
from windowkv_client.cli._demo._document import DemoDocument, Question
from windowkv_client.cli._terminal import OnProgress

KEPT_RATIO = 0.12
MAX_TOKENS = 24


@dataclass(frozen=True)
class Reply:
    """One answer, how long its first token took here, at the client, and what the service says of it."""

    question: Question
    text: str
    is_right: bool
    first_token_s: float
    usage: Usage


@dataclass(frozen=True)
class FirstRun:
    """From a document nobody has seen to its last answer.

    published: what WindowKV as published answers, which chooses its windows before it knows the question.
    full: what the uncompressed cache answers.
    """

    cache: Cache
    prefill_s: float
    replies: tuple[Reply, ...]
    published: tuple[Reply, ...]
    full: tuple[Reply, ...]

    @property
    def cold_s(self) -> float:
        """From the document's arrival to the first token of its first answer."""
        return self.prefill_s + self.replies[0].first_token_s

    @property
    def warm_s(self) -> float:
        """To the first token of a later answer; the median."""
        return statistics.median(reply.first_token_s for reply in self.replies[1:])


class Watcher(Protocol):
    def begin(self, question: Question) -> None: ...

    def hear(self, text: str) -> None: ...

    def end(self, reply: Reply) -> None: ...


def cache_document(
    client: Client, document: DemoDocument, on_progress: OnProgress | None, *, has_redis: bool
) -> tuple[Cache, float]:
    """The new cache, written down to Redis where there is one, and the seconds that it took."""
    started = time.monotonic()
    cache = client.caches.create(
        document.text,
        kept_ratio=KEPT_RATIO,
        ttl="1h",
        display_name="demo",
        durability=Durability.REDIS if has_redis else Durability.DEVICE,
        on_progress=on_progress or (lambda progress: None),
    )
    return cache, time.monotonic() - started


def first_run(
    client: Client, document: DemoDocument, cache: Cache, prefill_s: float, watcher: Watcher
) -> FirstRun:
    """Ask every question three times: choosing windows by the question, as published, and of the full cache."""
    replies = ask_all(client, cache, document, watcher)
    published = client.caches.create(
        document.text,
        kept_ratio=KEPT_RATIO,
        method="windowkv-published",
        retention=Retention.SELECTED,
        ttl="1h",
    )
    return FirstRun(
        client.caches.get(cache),
        prefill_s,
        replies,
        _ask_quietly(client, published, document, Selection.PUBLISHED),
        _ask_quietly(client, cache, document, Selection.FULL),
    )


def _ask_quietly(
    client: Client, cache: Cache, document: DemoDocument, selection: Selection
) -> tuple[Reply, ...]:
    return tuple(
        _ask(client, cache, question, selection, lambda text: None) for question in document.questions
    )


def ask_all(client: Client, cache: Cache, document: DemoDocument, watcher: Watcher) -> tuple[Reply, ...]:
    replies = []
    for question in document.questions:
        watcher.begin(question)
        reply = _ask(client, cache, question, Selection.AUTO, watcher.hear)
        watcher.end(reply)
        replies.append(reply)
    return tuple(replies)


def is_restored(cache: Cache, first: Reply) -> bool:
    """Whether a fresh worker answered from Redis, computing nothing of the document."""
    usage = first.usage
    return (
        usage.source_tier is Tier.REDIS
        and usage.cached_tokens == cache.token_count
        and not usage.is_recomputed
    )


def _ask(
    client: Client, cache: Cache, question: Question, selection: Selection, hear: Callable[[str], None]
) -> Reply:
    started, first_token_s = time.monotonic(), None
    messages = [{"role": "user", "content": question.text}]
    with client.generate(cache, messages=messages, selection=selection, max_tokens=MAX_TOKENS) as answer:
        for chunk in answer:
            if first_token_s is None and chunk.token_ids:
                first_token_s = time.monotonic() - started
            hear(chunk.text)
    assert answer.usage is not None
    text = answer.text.strip()
    return Reply(
        question=question,
        text=text,
        is_right=text == question.answer.strip(),
        first_token_s=time.monotonic() - started if first_token_s is None else first_token_s,
        usage=answer.usage,
    )
