"""What is asked: the same for the same seed, and what its name says."""

from __future__ import annotations

import random

import pytest

from windowkv_service.model.builtin.documents import Split, count_tokens, split_of
from windowkv_service.model.builtin.documents.ruler import tasks
from windowkv_service.quality.case import Asked, Case
from windowkv_service.quality.metrics import exact, parts
from windowkv_service.quality.suites import Task, find_tasks, num_cases, seed_kind, suite_of, suites
from windowkv_service.quality.suites.generated import Generated
from windowkv_service.quality.suites.niah import cell

EVERY = [task for suite in suites().values() for task in suite.tasks]
SHORT = [task for task in EVERY if "1000" in task.name or suite_of(task.name) == "reuse"]
ASKING = {"Question:", "What", "Which", "Where", "In", "Answer:"}


def names_asked_for(question: Asked) -> list[str]:
    words = [word.rstrip("?") for word in question.text.split()]
    return [word for word in words if word[0].isupper() and word not in ASKING]


def sentence_with(case: Case) -> tuple[int, int]:
    """(tokens before the sentence that states the asked fact, tokens of the document)."""
    (question,) = case.questions
    (name,), (answer,) = names_asked_for(question), question.expected
    pieces = case.document.split(". ")
    place = next(i for i, piece in enumerate(pieces) if name in piece and answer in piece)
    return count_tokens(". ".join(pieces[:place])), count_tokens(case.document)


@pytest.mark.parametrize("task", SHORT, ids=lambda task: task.name)
def test_a_seed_draws_the_same_case_again_and_another_number_another(task: Task) -> None:
    assert task.case(3, 0) == task.case(3, 0)
    assert task.case(3, 0) != task.case(3, 1)
    assert task.case(3, 0) != task.case(4, 0)


def test_two_tasks_share_no_document() -> None:
    texts = [task.case(5, 0).document for task in SHORT]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("task", SHORT, ids=lambda task: task.name)
def test_a_document_has_its_length(task: Task) -> None:
    wanted = 2000 if suite_of(task.name) == "reuse" else 1000
    assert abs(count_tokens(task.case(1, 0).document) - wanted) < 0.06 * wanted


@pytest.mark.parametrize("task", find_tasks(["niah/1000"]), ids=lambda task: task.name)
def test_the_needle_stands_at_its_depth(task: Task) -> None:
    for number in range(3):
        before, total = sentence_with(task.case(2, number))
        assert abs(before / total - cell(task.name)[1] / 100) < 0.06


def test_questions_ask_only_for_held_out_pairs() -> None:
    for task in find_tasks(["single/1000", "niah/1000"]):
        for question in task.case(7, 0).questions:
            (answer,) = question.expected
            assert any(split_of(name, answer) is Split.HELD_OUT for name in names_asked_for(question))


def test_reuse_asks_ten_questions_and_one_of_its_tasks_is_a_conversation() -> None:
    cases = [task.case(1, 0) for task in find_tasks(["reuse"])]
    assert [len(case.questions) for case in cases] == [10, 10]
    assert [case.is_conversation for case in cases] == [False, True]


def test_parts_of_suites_are_found_by_their_path() -> None:
    assert [task.name for task in find_tasks(["single/2000", "reuse"])] == [
        "single/2000",
        "reuse/one-by-one",
        "reuse/conversation",
    ]
    assert len(find_tasks(["niah/4000"])) == 5
    assert len(find_tasks(["niah", "niah/4000"])) == 15


def test_a_star_stands_for_what_is_not_said() -> None:
    assert len(find_tasks(["ruler/*/2000"])) == 13
    assert [task.name for task in find_tasks(["ruler/qa_*/1000"])] == ["ruler/qa_1/1000", "ruler/qa_2/1000"]


@pytest.mark.parametrize("name", ["", "sing", "single/20", "niah/4000/5", "longbench", "tape:here"])
def test_an_unknown_suite_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="known: single, niah, reuse, ruler, longbench:DIR, ruler-files:DIR"):
        find_tasks([name])


def test_development_and_reporting_seeds_are_told_apart() -> None:
    assert [seed_kind(seed) for seed in (0, 999, 1000)] == ["development", "development", "reporting"]


def test_ruler_has_its_thirteen_tasks_at_three_lengths() -> None:
    assert len(tasks()) == 13
    assert {task.name for task in find_tasks(["ruler/vt"])} == {f"ruler/vt/{n}" for n in (1000, 2000, 4000)}
    assert len(find_tasks(["ruler"])) == 39


@pytest.mark.parametrize(
    "task", [task for task in SHORT if suite_of(task.name) == "ruler"], ids=lambda task: task.name
)
def test_what_ruler_expects_is_said_by_the_right_answer_and_fits_it(task: Task) -> None:
    assert isinstance(task, Generated)
    document = task.source.draw(random.Random(3), Split.HELD_OUT)
    for question, answer in zip(document.questions, (one.answer for one in document.questions), strict=True):
        assert parts(answer, question.parts) == 100.0
        assert count_tokens(answer) < task.max_tokens


def test_only_ruler_is_scored_by_parts() -> None:
    metrics = {suite_of(task.name): task.case(1, 0).questions[0].metric for task in SHORT}
    assert metrics == {"single": exact, "niah": exact, "reuse": exact, "ruler": parts}


def test_generated_tasks_have_as_many_cases_as_are_wanted() -> None:
    assert [num_cases(task, 1000) for task in find_tasks(["ruler/cwe/1000"])] == [1000]
