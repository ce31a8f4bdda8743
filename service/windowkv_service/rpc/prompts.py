"""Input on the wire → token ids of the served model. Long texts are tokenized off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from windowkv.v1 import types_pb2
from windowkv_service.errors import BadOption, EmptyPrompt, TokenOutOfVocabulary
from windowkv_service.rpc.engine_client import Tokenizer

T = TypeVar("T")

LONG_TEXT = 2048  # characters; below, a thread costs more than the tokenizer does


@dataclass(frozen=True)
class Place:
    """Where in a conversation with the model an input stands."""

    is_continuation: bool = False  # it follows a cached prompt: no beginning-of-sequence token
    add_generation_prompt: bool = False  # the model speaks next


PROMPT = Place()
CONTINUATION = Place(is_continuation=True)
QUESTION = Place(add_generation_prompt=True)
QUESTION_ON_CACHE = Place(is_continuation=True, add_generation_prompt=True)


class PromptReader:
    """Reads inputs with one model's tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    async def read(self, input: types_pb2.Input, place: Place) -> list[int]:
        """The input's tokens. EmptyPrompt when there is nothing to tokenize."""
        _check_not_empty(input)
        return await self._read(input, place)

    async def read_question(self, input: types_pb2.Input, *, is_cached: bool) -> list[int]:
        """The input of Generate. On a cache it may be empty: the answer then continues the cached prompt."""
        return await (self._read(input, QUESTION_ON_CACHE) if is_cached else self.read(input, QUESTION))

    async def _read(self, input: types_pb2.Input, place: Place) -> list[int]:
        match input.WhichOneof("form"):
            case "text" if input.text:
                return await self._tokenize(input.text, place)
            case "messages" if input.messages.messages:
                return await self._render(input.messages, place)
            case "token_ids":
                return self._check_vocabulary(input.token_ids.token_ids, "input.token_ids")
            case _:
                return []

    async def detokenize(self, token_ids: Sequence[int], field: str) -> str:
        checked = self._check_vocabulary(token_ids, field)
        return await _beside(len(checked), partial(self._tokenizer.detokenize, checked))

    def _check_vocabulary(self, token_ids: Sequence[int], field: str) -> list[int]:
        vocab_size = self._tokenizer.vocab_size
        checked = list(token_ids)
        if checked and max(checked) >= vocab_size:
            index, token_id = next((i, t) for i, t in enumerate(checked) if t >= vocab_size)
            raise TokenOutOfVocabulary(f"{token_id} is not below {vocab_size}", field=f"{field}[{index}]")
        return checked

    async def _tokenize(self, text: str, place: Place) -> list[int]:
        add_special_tokens = not place.is_continuation
        tokenize = partial(self._tokenizer.tokenize, text, add_special_tokens=add_special_tokens)
        return await _beside(len(text), tokenize)

    async def _render(self, chat: types_pb2.ChatMessages, place: Place) -> list[int]:
        for index, message in enumerate(chat.messages):
            if not message.role:
                raise BadOption("a message has a role", field=f"input.messages.messages[{index}].role")
        messages = [{"role": message.role, "content": message.content} for message in chat.messages]
        render = partial(
            self._tokenizer.render_chat,
            messages,
            is_continuation=place.is_continuation,
            add_generation_prompt=place.add_generation_prompt,
        )
        return await _beside(sum(len(message.content) for message in chat.messages), render)


def _check_not_empty(input: types_pb2.Input) -> None:
    """EmptyPrompt, naming the form that is empty."""
    form = input.WhichOneof("form")
    if form is None:
        raise EmptyPrompt("one of text, messages and token_ids is needed", field="input")
    content = {
        "text": input.text,
        "messages": input.messages.messages,
        "token_ids": input.token_ids.token_ids,
    }
    if not content[form]:
        raise EmptyPrompt(f"{form} is empty", field=f"input.{form}")


async def _beside(size: int, work: Callable[[], T]) -> T:
    return work() if size < LONG_TEXT else await asyncio.to_thread(work)
