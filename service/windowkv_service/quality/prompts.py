"""A case's prompts as tokens, made once for all arms, and cut in the middle where the model has no room for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from windowkv_client import AsyncClient
from windowkv_service.quality.case import Asked, Case


class Prompt(NamedTuple):
    """is_cut: it lost its middle."""

    token_ids: Sequence[int]
    is_cut: bool


@dataclass(frozen=True)
class Prompts:
    """max_tokens: of the model's context, answers included. A prompt that is longer loses its middle: the first and the
    last half of what fits are kept, as in LongBench's own script. What follows a cached document counts to its last
    half, so that a question is never cut."""

    client: AsyncClient
    max_tokens: int
    case: Case
    _made: dict[str, Prompt] = field(default_factory=dict)

    async def document(self) -> Prompt:
        """What is cached before anybody asks. There is room for the longest question and its answer; in a
        conversation, for all of them."""
        if "" not in self._made:
            lengths = [await self._length_of(question) for question in self.case.questions]
            after = sum(lengths) if self.case.is_conversation else max(lengths)
            ids = await self.client.models.tokenize(self.case.document)
            self._made[""] = _cut(ids, self.max_tokens, after)
        return self._made[""]

    async def with_question(self, asked: str, max_tokens: int) -> Prompt:
        """The document and what is asked, tokenized as one text; max_tokens: of the answer."""
        if asked not in self._made:
            ids = await self.client.models.tokenize(self.case.document + asked)
            self._made[asked] = _cut(ids, self.max_tokens - max_tokens, 0)
        return self._made[asked]

    async def _length_of(self, question: Asked) -> int:
        """In tokens, with the answer and the space that begins it in a conversation."""
        ids = await self.client.models.tokenize(question.text, add_special_tokens=False)
        return len(ids) + question.max_tokens + 1


def _cut(ids: Sequence[int], room: int, after: int) -> Prompt:
    """after: tokens that follow, of the same room. Raises ValueError where they leave none."""
    if len(ids) + after <= room:
        return Prompt(ids, is_cut=False)
    if after >= room:
        raise ValueError(f"{after} tokens of questions and answers leave no room in a context of {room}")
    last = max(0, room // 2 - after)
    return Prompt([*ids[: room - after - last], *ids[len(ids) - last :]], is_cut=True)
