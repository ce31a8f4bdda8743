"""The blocking client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

from windowkv_client import _calls as calls
from windowkv_client import _flows as flows
from windowkv_client import _replies as replies
from windowkv_client._ask import Document, KnownDocuments, Question, ask
from windowkv_client._calls import UNARY_TIMEOUT_S
from windowkv_client._channel import Address, Tls
from windowkv_client._environment import target_or_default, token_or_default
from windowkv_client._flow import Flow, RetryPolicy
from windowkv_client._generation import Generation
from windowkv_client._models import Answer, Cache, Chunk, Deletion, FinishReason, Health, Model, TokenLogprob, Usage
from windowkv_client._options import AskOptions, CreateOptions, GenerateOptions, Messages, UpdateOptions
from windowkv_client._transport import Transport

T = TypeVar("T")


class Client:
    """A connection to a windowkv service, or to a fleet of its workers. Safe to share between threads.

    target: "host:port", "unix:PATH", "dns:///name:port" or "a:1,b:1" (a fleet); else WINDOWKV_TARGET, else a worker
    on this machine. token: an API token, else WINDOWKV_TOKEN. tls: True for the system's certificates, or a Tls.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        token: str | None = None,
        tls: Tls | bool = False,
        retry: RetryPolicy | None = None,
        options: Sequence[tuple[str, str | int]] = (),
    ) -> None:
        self.target = target_or_default(target)
        address = Address(self.target, Tls() if tls is True else tls or None, options)
        self._channel = address.open()
        self._transport = Transport(self._channel, token_or_default(token))
        self._policy = retry or RetryPolicy()
        self._known = KnownDocuments()
        self.caches = Caches(self._transport, self._policy)
        self.models = Models(self._transport, self._policy)

    def generate(
        self, cache: Cache | str | None = None, text: str | None = None, **options: Unpack[GenerateOptions]
    ) -> GenerateStream:
        """Answer text, messages or token_ids after the cache, or on their own; streams. Use it in a `with`."""
        resume = options.pop("resume", True)
        call = calls.generate(cache, text, **options)
        return GenerateStream(Generation(call, self._policy, resume=resume), self._transport)

    def ask(self, document: Document, question: Question, **options: Unpack[AskOptions]) -> Answer:
        """Answer a question on a document, which is cached first when it is not, and again when its cache is gone."""
        return self._transport.run(ask(document, question, options, self._known, self._policy))

    def health(self, *, timeout: float = 5.0) -> Health:
        return self._transport.run(flows.health(self._policy, timeout))

    def close(self) -> None:
        """Close the connection; what is still streaming is cancelled. May be called again."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class GenerateStream:
    """An answer's pieces as they come; .text, .token_ids and the rest are whole after the last one.

    Leaving the `with` before that cancels the answer. For one consumer; cancel may be called from any thread.
    """

    def __init__(self, generation: Generation, transport: Transport) -> None:
        self._generation = generation
        self._transport = transport

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        chunk = self._transport.run(self._generation.next_chunk())
        if chunk is None:
            raise StopIteration
        return chunk

    def read(self) -> str:
        """Wait for the end; the whole text."""
        for _ in self:
            pass
        return self.text

    def cancel(self) -> None:
        self._generation.cancel()

    @property
    def text(self) -> str:
        return self._generation.text

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self._generation.token_ids

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        return self._generation.logprobs

    @property
    def finish_reason(self) -> FinishReason | None:
        return self._generation.finish_reason

    @property
    def usage(self) -> Usage | None:
        return self._generation.usage

    @property
    def request_id(self) -> str:
        return self._generation.request_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


class Caches:
    """`client.caches`"""

    def __init__(self, transport: Transport, policy: RetryPolicy) -> None:
        self._transport = transport
        self._policy = policy

    def create(self, text: str | None = None, **options: Unpack[CreateOptions]) -> Cache:
        """Prefill a prompt and keep it compressed. The same prompt gives the same cache: creating it again is a hit."""
        on_progress = options.pop("on_progress", None)
        call = calls.create_cache(text, **options)
        return self._transport.run(flows.create_cache(call, self._policy, on_progress))

    def get(self, cache: Cache | str, *, timeout: float = UNARY_TIMEOUT_S) -> Cache:
        call = calls.get_cache(cache, timeout)
        return replies.read_cache(self._ask(call).cache)

    def list(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        page_size: int = 100,
        timeout: float = UNARY_TIMEOUT_S,
    ) -> Iterator[Cache]:
        """All caches that carry the labels, newest first; further pages are fetched as they are needed."""
        pages = flows.Pages(labels, page_size, timeout, self._policy)
        while (page := self._transport.run(pages.next_page())) is not None:
            yield from page

    def update(self, cache: Cache | str, **changes: Unpack[UpdateOptions]) -> Cache:
        """Change ttl (from now), pinned, display_name, labels or alias; what is not named stays."""
        return replies.read_cache(self._ask(calls.update_cache(cache, **changes)).cache)

    def delete(
        self, cache: Cache | str, *, allow_missing: bool = False, timeout: float = UNARY_TIMEOUT_S
    ) -> Deletion:
        """Forget a cache in every tier."""
        call = calls.delete_cache(cache, allow_missing=allow_missing, timeout=timeout)
        return replies.read_deletion(self._ask(call))

    def _ask(self, call: calls.Call) -> flows.Reply:
        return self._transport.run(flows.ask_once(call, self._policy))


class Models:
    """`client.models`"""

    def __init__(self, transport: Transport, policy: RetryPolicy) -> None:
        self._transport = transport
        self._policy = policy

    def get(self, *, timeout: float = UNARY_TIMEOUT_S) -> Model:
        """The model that is served."""
        return replies.read_model(self._ask(calls.get_model(timeout=timeout)).model)

    def count_tokens(
        self,
        text: str | None = None,
        *,
        messages: Messages | None = None,
        token_ids: Sequence[int] | None = None,
        timeout: float = UNARY_TIMEOUT_S,
    ) -> int:
        """How many tokens caches.create would cache."""
        return int(self._ask(calls.count_tokens(text, messages, token_ids, timeout)).token_count)

    def tokenize(
        self,
        text: str | None = None,
        *,
        messages: Messages | None = None,
        add_special_tokens: bool = True,
        timeout: float = UNARY_TIMEOUT_S,
    ) -> tuple[int, ...]:
        """The tokens of a prompt; without special tokens, those of what follows a cache."""
        return tuple(self._ask(calls.tokenize(text, messages, add_special_tokens, timeout)).token_ids)

    def detokenize(self, token_ids: Sequence[int], *, timeout: float = UNARY_TIMEOUT_S) -> str:
        return str(self._ask(calls.detokenize(token_ids, timeout)).text)

    def _ask(self, call: calls.Call) -> flows.Reply:
        return self._transport.run(flows.ask_once(call, self._policy))
