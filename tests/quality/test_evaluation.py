"""Asking a worker: what is cached, what is asked, and what is left when a run is interrupted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from running_service import RunningService, running

from windowkv_client import AsyncClient
from windowkv_service.quality.answers import Answers, OtherRun, recorded
from windowkv_service.quality.arm import Arm, Visibility, arms
from windowkv_service.quality.asking import Asking
from windowkv_service.quality.case import Asked, Case
from windowkv_service.quality.evaluation import Evaluation
from windowkv_service.quality.method import Method
from windowkv_service.quality.metrics import exact, parts
from windowkv_service.quality.prompts import Prompts
from windowkv_service.quality.reply import Reply
from windowkv_service.quality.suites import find_tasks

T = TypeVar("T")
HIDDEN = Arm(Method("random"), 0.12, Visibility.HIDDEN)
VISIBLE = Arm(Method("random"), 0.12, Visibility.VISIBLE)
DOCUMENT = " " + " ".join(["The code word of Ashby is amber. The home of Denby is Greycliff."] * 10)
QUESTIONS = (
    Asked("\nQuestion: What is the code word of Ashby?\nAnswer:", ("amber",), exact),
    Asked("\nQuestion: Where does Denby come from?\nAnswer:", ("Greycliff",), parts),
)


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    with running() as service:
        yield service


async def with_client(service: RunningService, work: Callable[[AsyncClient], Awaitable[T]]) -> T:
    async with AsyncClient(service.target) as client:
        return await work(client)


async def ask(service: RunningService, arm: Arm, case: Case) -> tuple[list[Reply], int]:
    """The replies, and how many caches were made for them."""

    async def work(client: AsyncClient) -> tuple[list[Reply], int]:
        names = set[str]()
        replies = await Asking(client, arm, Prompts(client, 8192, case), names).replies()
        return replies, len(names)

    return await with_client(service, work)


async def test_hidden_questions_share_one_cache_and_visible_ones_have_one_each(
    service: RunningService,
) -> None:
    for arm, num_caches in ((HIDDEN, 1), (VISIBLE, 2)):
        replies, made = await ask(service, arm, Case(DOCUMENT, QUESTIONS))
        assert (len(replies), made) == (2, num_caches)


@pytest.mark.parametrize("is_conversation", [False, True])
async def test_the_full_cache_answers_what_it_was_asked(
    service: RunningService, is_conversation: bool
) -> None:
    for question in Visibility:
        arm = Arm(Method("full"), 1.0, question)
        replies, _ = await ask(service, arm, Case(DOCUMENT, QUESTIONS, is_conversation))
        assert [reply.score for reply in replies] == [100.0, 100.0]


async def test_what_a_visible_question_takes_counts_to_the_prompt_and_a_hidden_one_to_the_tail(
    service: RunningService,
) -> None:
    case = Case(DOCUMENT, (replace(QUESTIONS[0], text=QUESTIONS[0].text * 5),))
    (hidden, *_), _ = await ask(service, HIDDEN, case)
    (visible, *_), _ = await ask(service, VISIBLE, case)
    assert 0 < visible.tail_bytes < hidden.tail_bytes and hidden.full_bytes < visible.full_bytes


@pytest.mark.parametrize("room", [80, 81])
async def test_a_prompt_that_is_too_long_loses_its_middle(service: RunningService, room: int) -> None:
    """Of what fits, the first half and the last half stay; a hidden question counts to the last half."""

    async def work(client: AsyncClient) -> None:
        whole = await client.models.tokenize(DOCUMENT)
        asked = await client.models.tokenize(QUESTIONS[0].text, add_special_tokens=False)
        prompts = Prompts(client, room, Case(DOCUMENT, QUESTIONS[:1]))
        after = len(asked) + QUESTIONS[0].max_tokens + 1
        hidden = await prompts.document()
        first, last = (room + 1) // 2, room // 2 - after
        assert hidden == ([*whole[:first], *whole[len(whole) - last :]], True)
        visible = await prompts.with_question(QUESTIONS[0].text, 10)
        assert len(visible.token_ids) == room - 10 and visible.token_ids[-len(asked) :] == list(asked)

    await with_client(service, work)


async def test_a_prompt_that_fits_is_left_whole(service: RunningService) -> None:
    async def work(client: AsyncClient) -> None:
        prompts = Prompts(client, 8192, Case(DOCUMENT, QUESTIONS))
        assert await prompts.document() == (await client.models.tokenize(DOCUMENT), False)

    await with_client(service, work)


async def test_questions_that_leave_no_room_for_a_document_are_refused(service: RunningService) -> None:
    async def work(client: AsyncClient) -> None:
        with pytest.raises(ValueError, match="leave no room"):
            await Prompts(client, 20, Case(DOCUMENT, QUESTIONS[:1])).document()

    await with_client(service, work)


EVALUATION = Evaluation(
    find_tasks(["single/1000"]), arms([Method("full"), HIDDEN.method], [0.12], [Visibility.HIDDEN]), 1, 2
)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts what runs in its background with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_what_was_answered_before_an_interruption_is_kept_and_not_asked_again(
    service: RunningService, tmp_path: Path
) -> None:
    async def run(answers: Answers, on_step: Callable[[str], object]) -> None:
        await with_client(service, lambda client: EVALUATION.run(client, answers, on_step))

    def interrupt(task: str) -> None:
        signal.raise_signal(signal.SIGINT)

    with recorded(tmp_path, {"seed": 1}, is_resumed=False) as answers, pytest.raises(KeyboardInterrupt):
        asyncio.run(run(answers, interrupt))
    num_kept = len(answers)
    assert 1 <= num_kept < len(EVALUATION.places)
    assert sum(result.documents for result in EVALUATION.results(answers)) == num_kept
    steps: list[str] = []
    with recorded(tmp_path, {"seed": 1}, is_resumed=True) as answers:
        asyncio.run(run(answers, steps.append))
    assert len(steps) == len(EVALUATION.places) - num_kept
    assert [result.documents for result in EVALUATION.results(answers)] == [2, 2]


REPLY = Reply("amber", 100.0, 40, 110, 30, 1000, 0.75, False)


def test_a_line_that_was_cut_short_is_asked_again(tmp_path: Path) -> None:
    first, second, *_ = EVALUATION.places
    with recorded(tmp_path, {}, is_resumed=False) as answers:
        answers.add(first, [REPLY])
        answers.add(second, [REPLY])
    path = tmp_path / "answers.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-10], encoding="utf-8")
    with recorded(tmp_path, {}, is_resumed=True) as answers:
        assert first in answers and second not in answers


def test_runs_side_by_side_can_be_joined(tmp_path: Path) -> None:
    for folder, place in zip(("hidden", "visible"), EVALUATION.places, strict=False):
        with recorded(tmp_path / folder, {}, is_resumed=False) as answers:
            answers.add(place, [REPLY])
    (tmp_path / "visible" / "answers.jsonl").rename(tmp_path / "hidden" / "answers-visible.jsonl")
    with recorded(tmp_path / "hidden", {}, is_resumed=True) as answers:
        assert [place in answers for place in EVALUATION.places[:3]] == [True, True, False]


def test_a_run_that_is_not_resumed_begins_anew(tmp_path: Path) -> None:
    with recorded(tmp_path, {}, is_resumed=False) as answers:
        answers.add(EVALUATION.places[0], [REPLY])
    with recorded(tmp_path, {}, is_resumed=False) as answers:
        assert len(answers) == 0


def test_answers_of_another_model_are_left_alone(tmp_path: Path) -> None:
    with recorded(tmp_path, {"model": "one"}, is_resumed=False) as answers:
        answers.add(EVALUATION.places[0], [REPLY])
    with pytest.raises(OtherRun), recorded(tmp_path, {"model": "another"}, is_resumed=True):
        pass
    with recorded(tmp_path, {"model": "one"}, is_resumed=True) as answers:
        assert len(answers) == 1
