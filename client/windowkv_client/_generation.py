"""An answer while it is being received, and how a broken stream goes on. No I/O: see `_flow`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from windowkv.v1 import generation_pb2
from windowkv_client._calls import Call
from windowkv_client._errors import RequestCancelled, ResourceExhausted, Unavailable, WindowKVError
from windowkv_client._flow import Flow, Open, Patience, Pause, Read, RetryPolicy, Stream
from windowkv_client._models import Chunk, FinishReason, TokenLogprob, Usage
from windowkv_client._replies import read_chunk


class Transcript:
    """Text and tokens received so far."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self.token_ids: list[int] = []

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transcript) and self.token_ids == other.token_ids and self.text == other.text

    __hash__ = None  # type: ignore[assignment]  # it grows

    def add(self, chunk: Chunk) -> None:
        self._texts.append(chunk.text)
        self.token_ids.extend(chunk.token_ids)

    def news_of(self, other: Transcript) -> tuple[str, Sequence[int]] | None:
        """What other has beyond this one; None when the two tell different stories."""
        text, other_text = self.text, other.text
        shared = min(len(self.token_ids), len(other.token_ids))
        is_same = self.token_ids[:shared] == other.token_ids[:shared]
        if not is_same or not (other_text.startswith(text) or text.startswith(other_text)):
            return None
        return other_text[len(text) :], other.token_ids[len(self.token_ids) :]


class Received:
    """What has come of an answer so far; whole after its last piece."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id  # finds the answer in the service's log
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None
        self._delivered = Transcript()
        self._logprobs: list[TokenLogprob] = []

    @property
    def text(self) -> str:
        return self._delivered.text

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(self._delivered.token_ids)

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        return tuple(self._logprobs)


class Generation(Received):
    """One answer: its stream, what came of it, and the attempts it took.

    A request that found no room is sent again after the pause the service asks for. A stream that breaks because the
    worker went away is asked for again when the answer is repeatable (greedy, or with a seed): the new stream tells
    the answer from its beginning, what the caller has is checked against it and not delivered twice. Asking the same
    question keeps stop strings, penalties and seeds exact, which continuing behind the generated tokens would not.
    """

    def __init__(self, call: Call, policy: RetryPolicy, *, resume: bool) -> None:
        super().__init__(call.request_id)
        self._call = call
        self._patience = Patience(policy, call.timeout_s)
        self._may_resume = resume and is_repeatable(call)
        self._stream: Stream | None = None
        self._is_over = False
        self._is_cancelled = False
        self._told: Transcript | None = None  # by the stream that replaced a broken one

    def cancel(self) -> None:
        """Stop the answer; the worker frees its sequence within one step. What was received stays."""
        self._is_over = self._is_cancelled = True
        if self._stream is not None:
            self._stream.cancel()

    def next_chunk(self) -> Flow[Chunk | None]:
        """The next piece, None after the last."""
        while not self._is_over:
            try:
                if self._stream is None:
                    self._stream = yield Open(self._patience.attempt(self._call))
                message = yield Read(self._stream)
            except RequestCancelled:
                if self._is_cancelled:
                    return None
                raise
            except WindowKVError as error:
                if self.finish_reason is not None:  # the answer was whole before the connection broke
                    self._is_over = True
                    return None
                yield self._wait_to_reopen(error)
                continue
            if message is None:
                self._is_over = True
            elif (chunk := self._accept(read_chunk(message))) is not None:
                return chunk
        return None

    def _wait_to_reopen(self, error: WindowKVError) -> Pause:
        has_delivered = bool(self._delivered.token_ids)
        if isinstance(error, ResourceExhausted) and error.retry_after_s is not None and not has_delivered:
            may_retry = True
        else:
            may_retry = isinstance(error, Unavailable) and (self._may_resume or not has_delivered)
        if not may_retry:
            self._is_over = True
            raise error
        self._stream = None
        self._told = Transcript() if has_delivered else None
        return self._patience.wait_after(error)

    def _accept(self, chunk: Chunk) -> Chunk | None:
        if self._told is not None:
            fresh = self._skip_delivered(chunk, self._told)
            if fresh is None:
                return None
            chunk = fresh
        self._delivered.add(chunk)
        if self._told is not None and self._told == self._delivered:
            self._told = None
        self._logprobs.extend(chunk.logprobs)
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage
        return chunk

    def _skip_delivered(self, chunk: Chunk, told: Transcript) -> Chunk | None:
        """What of a retold piece the caller has not seen yet; None when that is nothing."""
        told.add(chunk)
        news = self._delivered.news_of(told)
        if news is None:
            self.cancel()
            raise Unavailable("the stream broke, and the answer could not be repeated as it had begun")
        text, token_ids = news
        if not (text or token_ids or chunk.finish_reason):
            return None
        first = len(self._delivered.token_ids)
        logprobs = chunk.logprobs[len(chunk.logprobs) - len(token_ids) :] if chunk.logprobs else ()
        return replace(chunk, index=first, text=text, token_ids=tuple(token_ids), logprobs=logprobs)


def is_repeatable(call: Call) -> bool:
    """Whether asking again gives the same answer: it is greedy, or its chance is seeded."""
    request = call.request
    assert isinstance(request, generation_pb2.GenerateRequest)
    return request.sampling.temperature == 0.0 or request.sampling.HasField("seed")
