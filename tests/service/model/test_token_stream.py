"""Text of an answer as it grows, for tokenizers of bytes and of words with bytes to fall back on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import byte_tokenizer
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models
from transformers import PreTrainedTokenizerFast

from windowkv_service.model.tokenizer import Tokenizer


def of_bytes() -> Tokenizer:
    tokenizer = byte_tokenizer()
    return Tokenizer(tokenizer, len(tokenizer))


def with_byte_fallback() -> Tokenizer:
    """As Llama 2, Mistral and Gemma have it."""
    words = ["▁the", "▁a", "b", "é", "日", "▁"]
    vocabulary = {
        token: n for n, token in enumerate(["<unk>", *(f"<0x{n:02X}>" for n in range(256)), *words])
    }
    backend = Backend(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend), len(vocabulary))


def stream(tokenizer: Tokenizer, token_ids: list[int]) -> list[str]:
    made = tokenizer.stream()
    return [made.push(token_id) for token_id in token_ids]


@settings(deadline=None)
@given(st.text(max_size=40))
def test_the_pieces_of_any_text_join_to_it(text: str) -> None:
    tokenizer = of_bytes()
    pieces = stream(tokenizer, tokenizer.tokenize(text, add_special_tokens=False))
    assert "".join(pieces) == text


def test_no_piece_holds_half_a_character() -> None:
    tokenizer = of_bytes()
    pieces = stream(tokenizer, tokenizer.tokenize("aé🦆", add_special_tokens=False))
    assert pieces == ["a", "", "é", "", "", "", "🦆"]


@pytest.mark.parametrize("make", [of_bytes, with_byte_fallback])
def test_any_tokens_at_all_have_a_text(make: type) -> None:
    """A random model says bytes that make no characters, and changes its mind about them."""
    tokenizer = make()

    @settings(deadline=None, max_examples=300)
    @given(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    def survives(token_ids: list[int]) -> None:
        assert len(stream(tokenizer, token_ids)) == len(token_ids)

    survives()


def test_valid_text_after_broken_bytes_comes_through() -> None:
    tokenizer = with_byte_fallback()
    broken = [1 + 0xE6, 1 + 0x97, 1 + 0xFF, 1 + 0xC3]
    backend_ids = [*broken, 257, 259, 259]  # " the", "b", "b"
    assert "".join(stream(tokenizer, backend_ids)).endswith("thebb")
