"""The stand-in for a model: copies what followed the longest earlier occurrence of the text's ending."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

EOS = 256
VOCAB_SIZE = 257
LONGEST_MATCH = 64
SENTENCE_ENDS = frozenset(map(ord, ".!?\n"))


def tokenize(text: str) -> list[int]:
    return list(text.encode())


def detokenize(token_ids: Sequence[int]) -> str:
    return bytes(token_id for token_id in token_ids if token_id != EOS).decode(errors="replace")


def render_chat(messages: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{role}: {content}" for role, content in messages)


def answer(prompt: Sequence[int], question: str, scripted: Mapping[str, str]) -> Iterator[int]:
    """The answer's tokens, EOS last. prompt is everything, the question at its end included."""
    known = scripted.get(question.strip())
    return _recite(known) if known is not None else _copy(prompt)


def _recite(text: str) -> Iterator[int]:
    yield from tokenize(text)
    yield EOS


def _copy(prompt: Sequence[int]) -> Iterator[int]:
    written = "".join(map(chr, prompt))
    while (token_id := _following(written)) is not None:
        yield token_id
        if token_id in SENTENCE_ENDS:
            break
        written += chr(token_id)
    yield EOS


def _following(written: str) -> int | None:
    for length in range(min(LONGEST_MATCH, len(written) - 1), 0, -1):
        place = written.rfind(written[-length:], 0, len(written) - 1)
        if place >= 0:
            return ord(written[place + length])
    return None
