"""ask: a document and a question go in, an answer comes out, whatever became of the cache in between. No I/O.

A question that is a plain str is asked as a user's message; where the model has no chat template it follows the
document as it is.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from windowkv.v1 import cache_pb2
from windowkv_client import _calls as calls
from windowkv_client._calls import Call
from windowkv_client._errors import CacheNotFound, InvalidText
from windowkv_client._flow import Flow, RetryPolicy
from windowkv_client._flows import create_cache
from windowkv_client._generation import Generation, Received
from windowkv_client._models import Answer, Cache
from windowkv_client._options import CacheOptions, GenerateOptions, Messages

Document = str | Messages | Cache
Question = str | Messages
_CACHE_OPTIONS = frozenset(CacheOptions.__annotations__) - {"on_progress"}
_GENERATE_OPTIONS = frozenset(GenerateOptions.__annotations__) - {
    "messages",
    "token_ids",
    "kept_ratio",
    "resume",
}
_OWN_OPTIONS = frozenset({"on_progress", "on_chunk", "resume"})


class KnownDocuments:
    """The caches of documents asked before, so that asking again need not send the document. Bounded."""

    def __init__(self, limit: int = 256) -> None:
        self._caches: OrderedDict[bytes, Cache] = OrderedDict()
        self._limit = limit

    def find(self, key: bytes) -> Cache | None:
        return self._caches.get(key)

    def remember(self, key: bytes, cache: Cache) -> None:
        self._caches[key] = cache
        self._caches.move_to_end(key)
        while len(self._caches) > self._limit:
            self._caches.popitem(last=False)

    def forget(self, key: bytes) -> None:
        self._caches.pop(key, None)


def ask(
    document: Document,
    question: Question,
    options: Mapping[str, Any],
    known: KnownDocuments,
    policy: RetryPolicy,
) -> Flow[Answer]:
    """Ask a document's cache, which is created when it is not known and again when no tier holds it any more."""
    _refuse_unknown(options)
    if isinstance(document, Cache):
        return (yield from _answer(document, question, options, policy, was_prefilled=False))
    creation = _creation(document, options)
    key = _document_key(creation)
    cache = known.find(key)
    if cache is not None:
        try:
            return (yield from _answer(cache, question, options, policy, was_prefilled=False))
        except CacheNotFound:
            known.forget(key)
            # The name has chosen the worker that was asked; that one must hold the new cache.
            creation = _creation(document, options, routing_key=cache.name)
    cache = yield from create_cache(creation, policy, options.get("on_progress"))
    known.remember(key, cache)
    was_prefilled = cache.creation is None or not cache.creation.is_hit
    return (yield from _answer(cache, question, options, policy, was_prefilled=was_prefilled))


def _creation(document: str | Messages, options: Mapping[str, Any], routing_key: str = "") -> Call:
    chosen: dict[str, Any] = {name: value for name, value in options.items() if name in _CACHE_OPTIONS}
    return calls.create_cache(**_form(document), **chosen, routing_key=routing_key)


def _answer(
    cache: Cache, question: Question, options: Mapping[str, Any], policy: RetryPolicy, *, was_prefilled: bool
) -> Flow[Answer]:
    as_chat = [{"role": "user", "content": question}] if isinstance(question, str) else question
    try:
        received = yield from _generate(
            calls.generate(cache, messages=as_chat, **_given(options)), options, policy
        )
    except InvalidText:
        if not isinstance(question, str):
            raise
        received = yield from _generate(calls.generate(cache, question, **_given(options)), options, policy)
    return Answer(
        text=received.text,
        token_ids=received.token_ids,
        finish_reason=received.finish_reason,
        usage=received.usage,
        cache=cache,
        was_prefilled=was_prefilled,
    )


def _generate(call: Call, options: Mapping[str, Any], policy: RetryPolicy) -> Flow[Received]:
    on_chunk = options.get("on_chunk")
    generation = Generation(call, policy, resume=options.get("resume", True))
    try:
        while (chunk := (yield from generation.next_chunk())) is not None:
            if on_chunk is not None:
                on_chunk(chunk)
    finally:
        generation.cancel()
    return generation


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in _GENERATE_OPTIONS}


def _document_key(creation: Call) -> bytes:
    """The prompt and how it is cached, in 32 bytes."""
    request = cache_pb2.CreateCacheRequest()
    request.MergeFromString(creation.request.SerializeToString())
    request.request_id = ""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


def _form(prompt: str | Messages) -> dict[str, Any]:
    return {"text": prompt} if isinstance(prompt, str) else {"messages": prompt}


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    if unknown := options.keys() - _CACHE_OPTIONS - _GENERATE_OPTIONS - _OWN_OPTIONS:
        raise TypeError(f"ask() got an unexpected option: {', '.join(sorted(unknown))}")
