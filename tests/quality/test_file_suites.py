"""Published files, in the format that their makers give them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from windowkv_service.quality.metrics import Best, Classification, ruler_all, ruler_any, token_f1
from windowkv_service.quality.suites import find_tasks, num_cases
from windowkv_service.quality.suites.longbench import datasets, group_of
from windowkv_service.quality.suites.ruler_files import FORMS

HOTPOT = {
    "input": "Who left Greycliff?",
    "context": "Passage 1:\nMarlow left Greycliff.",
    "answers": ["Marlow"],
    "all_classes": None,
    "length": 6,
    "dataset": "hotpotqa",
    "language": "en",
    "_id": "1",
}
NEEDLES = (
    "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about the "
    "number afterwards.\nThe grass is green. One of the special magic numbers for loud-fox is: 1234567. Here we go.\n"
    "What is the special magic number for loud-fox mentioned in the provided text?"
)
ANSWER = " The special magic number for loud-fox mentioned in the provided text is"
TRACKING = (
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\nVAR AB = 1\n"
    "Question: Find all variables that are assigned the value 1 in the text above. Answer: AB\n\n"
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
    "VAR CD = 22 VAR EF = VAR CD\nQuestion: Find all variables that are assigned the value 22 in the text above. "
    "Answer: they are: "
)


def write(path: Path, *lines: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_line_of_longbench_is_a_document_and_a_question_in_the_data_sets_words(tmp_path: Path) -> None:
    write(tmp_path / "hotpotqa.jsonl", HOTPOT)
    (task,) = find_tasks([f"longbench:{tmp_path}"])
    case = task.case(0, 0)
    (question,) = case.questions
    assert task.name == "longbench/hotpotqa"
    assert case.document + question.text == datasets()["hotpotqa"]["template"].format(**HOTPOT)
    assert case.document.endswith("Passage 1:\nMarlow left Greycliff.")
    assert (question.expected, question.metric) == (("Marlow",), Best(token_f1))
    assert (question.max_tokens, question.stop) == (32, ())


def test_classes_and_first_lines_are_known_where_they_count(tmp_path: Path) -> None:
    write(tmp_path / "trec.jsonl", {**HOTPOT, "all_classes": ["City", "Person"], "answers": ["Person"]})
    (question,) = find_tasks([f"longbench:{tmp_path}/trec"])[0].case(0, 0).questions
    assert question.metric == Best(Classification(("City", "Person")), is_first_line=True)
    assert question.score("\nPerson\nCity") == 100.0


def test_braces_in_a_context_are_left_as_they_are(tmp_path: Path) -> None:
    write(tmp_path / "repobench-p.jsonl", {**HOTPOT, "context": "if (x) {input}", "input": "y = {context}\n"})
    case = find_tasks([f"longbench:{tmp_path}"])[0].case(0, 0)
    assert case.document.endswith("\nif (x) {input}")
    assert case.questions[0].text == "y = {context}\nNext line of code:\n"


@pytest.mark.parametrize("dataset", list(datasets()))
def test_every_data_set_can_be_read_and_belongs_to_a_group(dataset: str, tmp_path: Path) -> None:
    write(tmp_path / f"{dataset}.jsonl", {**HOTPOT, "all_classes": ["a"]}, {**HOTPOT, "all_classes": ["a"]})
    (task,) = find_tasks([f"longbench:{tmp_path}/{dataset}"])
    assert group_of(task.name) in GROUPS
    assert task.case(0, 0).questions[0].score("Marlow") >= 0.0


GROUPS = ("single-document QA", "multi-document QA", "summarization", "few-shot", "synthetic", "code")


def test_questions_on_one_document_are_one_case(tmp_path: Path) -> None:
    other = {**HOTPOT, "context": "Nobody left."}
    write(tmp_path / "qasper.jsonl", HOTPOT, other, {**HOTPOT, "input": "Why?"})
    (task,) = find_tasks([f"longbench:{tmp_path}"])
    assert task.size == 2 and num_cases(task, 10) == 2 and num_cases(task, 1) == 1
    assert sorted(len(task.case(0, number).questions) for number in range(2)) == [1, 2]


def test_a_seed_is_an_order_of_the_cases(tmp_path: Path) -> None:
    write(tmp_path / "qasper.jsonl", *({**HOTPOT, "context": str(number)} for number in range(20)))
    (task,) = find_tasks([f"longbench:{tmp_path}"])
    first, second = ([task.case(seed, number) for number in range(20)] for seed in (1, 2))
    assert first != second and first == [task.case(1, number) for number in range(20)]
    assert {case.document for case in first} == {case.document for case in second} and len(set(first)) == 20


@pytest.mark.parametrize("tail", ["in the input", "in a field of its own"])
def test_a_line_of_ruler_is_cut_where_its_question_begins(tail: str, tmp_path: Path) -> None:
    line = {"index": 0, "input": NEEDLES, "outputs": ["1234567"], "length": 90, "answer_prefix": ANSWER}
    if tail == "in the input":
        line = {**line, "input": NEEDLES + ANSWER, "answer_prefix": ""}
    write(tmp_path / "niah_single_1.jsonl", line)
    (task,) = find_tasks([f"ruler-files:{tmp_path}"])
    case = task.case(0, 0)
    (question,) = case.questions
    assert case.document.endswith("Here we go.") and question.text.startswith(
        "\nWhat is the special magic number"
    )
    assert case.document + question.text == NEEDLES + ANSWER
    assert (question.expected, question.metric, question.max_tokens) == (("1234567",), ruler_all, 128)


def test_of_an_example_with_a_question_of_its_own_the_last_question_is_asked(tmp_path: Path) -> None:
    write(tmp_path / "vt.jsonl", {"index": 0, "input": TRACKING, "outputs": ["CD", "EF"], "length": 9})
    case = find_tasks([f"ruler-files:{tmp_path}"])[0].case(0, 0)
    assert case.document.endswith("VAR CD = 22 VAR EF = VAR CD")
    assert case.questions[0].score("cd") == 50.0


def test_the_folders_of_rulers_scripts_name_the_tasks(tmp_path: Path) -> None:
    line = {"index": 0, "input": NEEDLES, "outputs": ["1234567"], "length": 90}
    for length in ("4096", "8192"):
        write(tmp_path / length / "data" / "niah_single_2" / "validation.jsonl", line)
    write(tmp_path / "notes.jsonl", {"nothing": "to see"})
    names = [task.name for task in find_tasks([f"ruler-files:{tmp_path}"])]
    assert names == ["ruler-files/niah_single_2/4096", "ruler-files/niah_single_2/8192"]


def test_one_right_answer_is_enough_for_rulers_questions() -> None:
    assert [name for name, form in FORMS.items() if form.metric is ruler_any] == ["qa_1", "qa_2"]


@pytest.mark.parametrize(
    ("suite", "name", "text", "complaint"),
    [
        ("longbench", "lcc", '{"input": ""', "lcc.jsonl:1: not JSON"),
        ("longbench", "lcc", "\n[1]", "lcc.jsonl:2: not a JSON object"),
        ("longbench", "lcc", '{"input": "", "context": ""}', "lcc.jsonl:1: 'answers' must be a list"),
        (
            "longbench",
            "lcc",
            '{"input": 1, "context": "", "answers": ["a"]}',
            "lcc.jsonl:1: 'input' must be a string",
        ),
        (
            "longbench",
            "lcc",
            '{"input": "", "context": "", "answers": []}',
            "lcc.jsonl:1: 'answers' is empty",
        ),
        ("longbench", "lcc", "\n", "lcc.jsonl: no lines"),
        ("longbench", "poems", "{}", "no file of LongBench there"),
        (
            "ruler-files",
            "vt",
            '{"input": "no question", "outputs": ["a"]}',
            "vt.jsonl:1: no question begins with",
        ),
        ("ruler-files", "vt", '{"outputs": ["a"]}', "vt.jsonl:1: 'input' must be a string"),
        ("ruler-files", "notes", "{}", "no file of RULER under it"),
    ],
)
def test_a_file_that_is_not_right_is_named_with_its_line(
    suite: str, name: str, text: str, complaint: str, tmp_path: Path
) -> None:
    (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        find_tasks([f"{suite}:{tmp_path}"])
    assert complaint in str(caught.value)


@pytest.mark.parametrize("suite", ["longbench", "ruler-files"])
def test_a_folder_that_is_not_there_is_refused(suite: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        find_tasks([f"{suite}:{tmp_path}/nowhere"])


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lcc.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"lcc\.jsonl: "):
        find_tasks([f"longbench:{tmp_path}"])
