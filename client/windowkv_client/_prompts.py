"""A prompt in any of its three forms → the wire's Input. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windowkv.v1 import types_pb2
from windowkv_client._errors import InvalidText, TokenOutOfVocabulary
from windowkv_client._options import Messages


def prompt_input(
    text: str | None, messages: Messages | None, token_ids: Sequence[int] | None
) -> types_pb2.Input | None:
    """The prompt in its one form, None when none is given. Raises TypeError when there are several."""
    if sum(form is not None for form in (text, messages, token_ids)) > 1:
        raise TypeError("give one of text, messages and token_ids")
    if text is not None:
        return types_pb2.Input(text=_utf8(text, "input.text"))
    if messages is not None:
        return types_pb2.Input(
            messages=types_pb2.ChatMessages(messages=[_message(each) for each in messages])
        )
    if token_ids is not None:
        return types_pb2.Input(token_ids=types_pb2.TokenIds(token_ids=token_id_list(token_ids)))
    return None


def _utf8(text: str, field: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidText(
            f"text is not valid Unicode: {error.reason} at {error.start}", field=field
        ) from None
    return text


def _message(message: Mapping[str, str]) -> types_pb2.ChatMessage:
    content = _utf8(message["content"], "input.messages")
    return types_pb2.ChatMessage(role=_utf8(message["role"], "input.messages"), content=content)


def token_id_list(token_ids: Sequence[int]) -> list[int]:
    wrong = next((token_id for token_id in token_ids if not 0 <= token_id < 1 << 32), None)
    if wrong is not None:
        raise TokenOutOfVocabulary(f"{wrong} is not a token id", field="input.token_ids")
    return list(token_ids)
