"""How one arm is asked one case: through the SDK, as any user would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from windowkv_client import Cache, Client
from windowkv_service.model.builtin.documents import Question, answer_text, question_suffix
from windowkv_service.quality.arm import Arm
from windowkv_service.quality.scoring import exact
from windowkv_service.quality.suites import Case

MAX_ANSWER_TOKENS = 16
LIFE_S = 3600


@dataclass(frozen=True)
class Reply:
    """One answer, scored, and the bytes that the service counted for it. All bytes are the prompt's on the device.

    entry_bytes: blocks and leader keys that the cache holds between questions (`cache.stored_bytes`).
    device_bytes: the same while answering, with the blocks that the answer reads, each once (`usage.device_bytes`).
    tail_bytes: beside those, the question's and the answer's own. full_bytes: the prompt's uncompressed cache.
    """

    said: str
    score: float
    entry_bytes: int
    device_bytes: int
    tail_bytes: int
    full_bytes: int


def ask_case(client: Client, arm: Arm, case: Case, names: set[str]) -> Iterator[Reply]:
    """The answers to all of the case's questions, in order. names: takes the names of the caches made for it."""
    said: list[str] = []
    for number, question in enumerate(case.document.questions):
        before = _turns(case.document.questions[:number], said) if case.is_conversation else ""
        asked = before + question_suffix(question.text)
        cache = _cache(client, arm, case.document.text + (asked if arm.is_visible else ""))
        names.add(cache.name)
        reply = _reply(client, arm, cache, None if arm.is_visible else asked, question)
        said.append(reply.said.strip())
        yield reply


def _turns(questions: tuple[Question, ...], said: list[str]) -> str:
    """What was asked and what the model made of it, right or wrong."""
    pairs = zip(questions, said, strict=True)
    return "".join(question_suffix(question.text) + answer_text(answer) for question, answer in pairs)


def _cache(client: Client, arm: Arm, text: str) -> Cache:
    return client.caches.create(
        text, method=arm.method.selector, kept_ratio=arm.kept_ratio, retention=arm.retention, ttl=LIFE_S
    )


def _reply(client: Client, arm: Arm, cache: Cache, asked: str | None, question: Question) -> Reply:
    with client.generate(
        cache, asked, selection=arm.selection, max_tokens=MAX_ANSWER_TOKENS, stop="\n", temperature=0.0
    ) as answer:
        said = answer.read()
    usage = answer.usage
    assert usage is not None, "a finished answer carries its usage"
    return Reply(
        said=said,
        score=exact(said, question.answer),
        entry_bytes=cache.stored_bytes,
        device_bytes=usage.device_bytes,
        tail_bytes=usage.tail_bytes,
        full_bytes=cache.full_bytes,
    )
