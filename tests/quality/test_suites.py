"""What is asked: the same for the same seed, and what its name says."""

from __future__ import annotations

import pytest

from windowkv_service.model.builtin.documents import Split, count_tokens, split_of
from windowkv_service.quality.suites import Case, Task, find_tasks, seed_kind, suites
from windowkv_service.quality.suites.niah import cell

EVERY = [task for suite in suites().values() for task in suite.tasks]
SHORT = [task for task in EVERY if "4000" not in task.name]


def sentence_with(case: Case) -> tuple[int, int]:
    """(tokens before the sentence that states the asked fact, tokens of the document)."""
    (question,) = case.document.questions
    name = next(
        word for word in question.text.rstrip("?").split() if word[0].isupper() and word not in ASKING
    )
    text = case.document.text
    pieces = text.split(". ")
    place = next(i for i, piece in enumerate(pieces) if name in piece and question.answer in piece)
    return count_tokens(". ".join(pieces[:place])), count_tokens(text)


ASKING = {"What", "Which", "Where", "In"}


@pytest.mark.parametrize("task", SHORT, ids=lambda task: task.name)
def test_a_seed_draws_the_same_case_again_and_another_number_another(task: Task) -> None:
    assert task.case(3, 0) == task.case(3, 0)
    assert task.case(3, 0) != task.case(3, 1)
    assert task.case(3, 0) != task.case(4, 0)


def test_two_tasks_share_no_document() -> None:
    texts = [task.case(5, 0).document.text for task in SHORT]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", ["single/1000", "niah/1000/50", "reuse/one-by-one"])
def test_a_document_has_its_length(name: str) -> None:
    (task,) = find_tasks([name])
    wanted = 2000 if task.suite == "reuse" else 1000
    assert abs(count_tokens(task.case(1, 0).document.text) - wanted) < 0.05 * wanted


@pytest.mark.parametrize("task", [task for task in SHORT if task.suite == "niah"], ids=lambda task: task.name)
def test_the_needle_stands_at_its_depth(task: Task) -> None:
    for number in range(3):
        before, total = sentence_with(task.case(2, number))
        assert abs(before / total - cell(task.name)[1] / 100) < 0.06


def test_questions_ask_only_for_held_out_pairs() -> None:
    for task in find_tasks(["single/1000", "niah/1000"]):
        for question in task.case(7, 0).document.questions:
            words = [word.rstrip("?") for word in question.text.split()]
            assert any(split_of(word, question.answer) is Split.HELD_OUT for word in words)


def test_reuse_asks_ten_questions_and_one_of_its_tasks_is_a_conversation() -> None:
    cases = [task.case(1, 0) for task in find_tasks(["reuse"])]
    assert [len(case.document.questions) for case in cases] == [10, 10]
    assert [case.is_conversation for case in cases] == [False, True]


def test_parts_of_suites_are_found_by_their_path() -> None:
    assert [task.name for task in find_tasks(["single/2000", "reuse"])] == [
        "single/2000",
        "reuse/one-by-one",
        "reuse/conversation",
    ]
    assert len(find_tasks(["niah/4000"])) == 5
    assert len(find_tasks(["niah", "niah/4000"])) == 15


@pytest.mark.parametrize("name", ["", "sing", "single/20", "niah/4000/5"])
def test_an_unknown_suite_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="known: single, niah, reuse"):
        find_tasks([name])


def test_development_and_reporting_seeds_are_told_apart() -> None:
    assert [seed_kind(seed) for seed in (0, 999, 1000)] == ["development", "development", "reporting"]
