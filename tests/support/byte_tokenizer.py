"""A tokenizer whose tokens are bytes, for tests that need to know the tokens by heart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windowkv_service.errors import InvalidText

BEGIN = 256


class ByteTokenizer:
    """256 begins a text that is no continuation. A chat is a line "role:content" per message."""

    vocab_size = 300

    def tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [BEGIN] * add_special_tokens + list(text.encode())

    def detokenize(self, token_ids: Sequence[int]) -> str:
        return bytes(token_id for token_id in token_ids if token_id < BEGIN).decode(errors="replace")

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], *, is_continuation: bool, add_generation_prompt: bool
    ) -> list[int]:
        if any(message["role"] not in ("system", "user", "assistant") for message in messages):
            raise InvalidText("the model's chat template refuses these messages", field="messages")
        text = "".join(f"{message['role']}:{message['content']}\n" for message in messages)
        return self.tokenize(
            text + "assistant:" * add_generation_prompt, add_special_tokens=not is_continuation
        )
