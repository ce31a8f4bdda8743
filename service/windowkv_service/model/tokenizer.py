"""Text to token ids and back, chat templates included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers.decoders import DecodeStream
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from windowkv_service.errors import InvalidText, UnsupportedModel


class Tokenizer:
    """A Hugging Face fast tokenizer; safe to use from several threads."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self.vocab_size = vocab_size

    @classmethod
    def load(cls, directory: Path, vocab_size: int) -> Tokenizer:
        try:
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UnsupportedModel(f"{directory} has no usable tokenizer: {error}") from error
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise UnsupportedModel(f"{directory} has no fast tokenizer (tokenizer.json)")
        return cls(tokenizer, vocab_size)

    def tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def detokenize(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], *, is_continuation: bool, add_generation_prompt: bool
    ) -> list[int]:
        """The chat as the model's template writes it; a continuation carries no beginning-of-sequence token."""
        if self._tokenizer.chat_template is None:
            raise InvalidText("this model has no chat template; send text or token ids", field="messages")
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
        except Exception as error:  # a template is a program of the model's author; it raises what it likes
            raise InvalidText(
                f"the model's chat template refuses these messages: {error}", field="messages"
            ) from error
        bos = self._tokenizer.bos_token
        if is_continuation and bos and text.startswith(bos):
            text = text[len(bos) :]
        return self.tokenize(text, add_special_tokens=False)

    def stream(self) -> TokenStream:
        return TokenStream(self._tokenizer)


class TokenStream:
    """One answer's token ids → its text, piece by piece; a piece ends where no character is cut in two."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)

    def push(self, token_id: int) -> str:
        try:
            return self._stream.step(self._backend, token_id) or ""
        except Exception:
            # A byte that makes invalid UTF-8 of its neighbours changes text that was said already (tokenizers with byte
            # fallback). It cannot be unsaid: go on from here.
            self._stream = DecodeStream(skip_special_tokens=True)
            return self._stream.step(self._backend, token_id) or ""
