"""The thirteen generated tasks: an independent reading of the text finds the expected answers."""

import random
import re
from collections import Counter

import pytest

from windowkv_service.model.builtin.documents import Split, count_tokens, lexicon, split_of, tasks
from windowkv_service.model.builtin.documents.facts import ATTRIBUTES, CODE_WORD
from windowkv_service.model.builtin.documents.paragraphs import COMPANION, companions_split
from windowkv_service.model.builtin.documents.retrieval import CODE, NUMBER

KINDS = sorted(tasks())
RETRIEVALS = [kind for kind in KINDS if kind.startswith("niah")]
ALL_ATTRIBUTES = (*ATTRIBUTES, NUMBER, CODE, COMPANION)


def draw(kind, num_tokens, split, seed=1, num_questions=3):
    return tasks()[kind](num_tokens, num_questions).draw(random.Random(seed), split)


def stated(text, attribute):
    """Every (name, value) pair of the attribute that a sentence of the text states, in order of the templates."""
    width = len(attribute.values)
    pairs = []
    for template in attribute.statements:
        pattern = re.escape(template).replace(r"\{name\}", r"(\w+(?: \w+ \w+)??)")
        pattern = pattern.replace(r"\{value\}", "(" + " ".join([r"\w+"] * width) + ")")
        for name, value in re.findall(r"(?<=[.\n\s])" + pattern, text):
            words = value.split()
            if all(word in each for word, each in zip(words, attribute.values, strict=True)):
                pairs.append((name, value))
    return pairs


def looked_up(text, attribute, name):
    return [value for key, value in stated(text, attribute) if key == name]


def names_in(question):
    """The keys a question ends with or mentions."""
    listed = re.search(r"code words of (.+)\?", question)
    if listed:
        return listed[1].split()
    coded = re.search(r"(?:code|number) of (.+)\?", question)
    if coded:
        return [coded[1]]
    return [word for word in re.findall(r"\w+", question) if word in lexicon.NAMES]


def attribute_of(question):
    for attribute in ALL_ATTRIBUTES:
        for template in attribute.questions:
            if re.fullmatch(re.escape(template).replace(r"\{name\}", r"[\w ]+"), question):
                return attribute
    raise AssertionError(f"no attribute is asked for by {question!r}")


def solve_retrieval(text, question):
    attribute = CODE_WORD if "code words" in question else attribute_of(question)
    return Counter(value for name in names_in(question) for value in looked_up(text, attribute, name))


def solve_variables(text, question):
    followers = dict(re.findall(r"(\w+) goes to (\w+)\.", text))
    chain = [re.findall(r"\d+", question)[0]]
    while chain[-1] in followers:
        chain.append(followers[chain[-1]])
    return Counter(chain[1:])


def solve_counts(text, num_words):
    ranked = Counter(text.split()).most_common(num_words + 1)
    assert ranked[-2][1] > 1.5 * ranked[-1][1]
    return Counter(word for word, _ in ranked[:-1])


def solve_paragraphs(text, question):
    bridged = re.fullmatch(r"What is the (.+) of the companion of (\w+)\?", question)
    if not bridged:
        return solve_retrieval(text, question)
    (companion,) = looked_up(text, COMPANION, bridged[2])
    (attribute,) = [each for each in ATTRIBUTES if each.label == bridged[1]]
    return Counter(looked_up(text, attribute, companion))


def solve(kind, text, question):
    if kind == "vt":
        return solve_variables(text, question)
    if kind in ("cwe", "fwe"):
        return solve_counts(text, {"cwe": 10, "fwe": 3}[kind])
    return solve_paragraphs(text, question) if kind.startswith("qa") else solve_retrieval(text, question)


@pytest.mark.parametrize("split", Split)
@pytest.mark.parametrize("num_tokens", [300, 2000])
@pytest.mark.parametrize("kind", KINDS)
def test_the_expected_parts_follow_from_the_text(kind, num_tokens, split):
    document = draw(kind, num_tokens, split)
    assert document.questions
    for question in document.questions:
        assert solve(kind, document.text, question.text) == Counter(question.parts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_full_answer_says_every_part_as_whole_words(kind):
    for question in draw(kind, 500, Split.TRAIN).questions:
        assert all(re.search(rf"\b{part}\b", question.answer) for part in question.parts)
        assert question.answer == question.answer.strip()


@pytest.mark.parametrize("num_tokens", [500, 4000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_document_has_about_the_length_asked_for(kind, num_tokens):
    text = draw(kind, num_tokens, Split.HELD_OUT).text
    assert count_tokens(text) == pytest.approx(num_tokens, rel=0.03, abs=80 if kind.startswith("qa") else 10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_document(kind):
    assert draw(kind, 500, Split.TRAIN) == draw(kind, 500, Split.TRAIN)
    assert draw(kind, 500, Split.TRAIN) != draw(kind, 500, Split.TRAIN, seed=2)


@pytest.mark.parametrize("split", Split)
@pytest.mark.parametrize("kind", [*RETRIEVALS, "qa_1", "qa_2"])
def test_every_stated_pair_belongs_to_the_split(kind, split):
    text = draw(kind, 2000, split).text
    pairs = [pair for each in (*ATTRIBUTES, NUMBER, CODE) for pair in stated(text, each)]
    assert pairs
    assert {split_of(*pair) for pair in pairs} == {split}


@pytest.mark.parametrize("split", Split)
def test_companions_belong_to_the_split(split):
    pairs = stated(draw("qa_2", 2000, split).text, COMPANION)
    assert {companions_split(*pair) for pair in pairs} == {split}


@pytest.mark.parametrize("split", Split)
def test_every_assignment_belongs_to_the_split(split):
    pairs = re.findall(r"(\w+) goes to (\w+)\.", draw("vt", 2000, split).text)
    assert len(pairs) == 15
    assert {split_of(*pair) for pair in pairs} == {split}


@pytest.mark.parametrize(("kind", "is_ordered"), [("cwe", False), ("fwe", True)])
def test_the_words_to_count_belong_to_the_split(kind, is_ordered):
    for split in Split:
        for seed in range(20):
            parts = draw(kind, 300, split, seed).questions[0].parts
            first, *others = parts if is_ordered else sorted(parts)
            assert split_of(first, " ".join(others)) is split


def test_common_words_stand_ten_times_as_often_as_others():
    counts = Counter(draw("cwe", 4000, Split.HELD_OUT).text.split()).most_common()
    assert len(counts) > 100
    assert counts[9][1] / counts[10][1] >= 8


def test_chains_are_told_in_order_and_have_rivals():
    document = draw("vt", 1000, Split.HELD_OUT)
    assert len(document.questions) == 3
    for question in document.questions:
        places = [document.text.index(f"goes to {variable}.") for variable in question.parts]
        assert places == sorted(places)
        assert len(places) == 5


@pytest.mark.parametrize(("kind", "least"), [("niah_multikey_2", 400), ("niah_multikey_3", 280)])
def test_a_hay_of_needles_is_nothing_but_needles(kind, least):
    text = draw(kind, 4000, Split.TRAIN).text
    assert text.count(".") == text.count(" is ") >= least


@pytest.mark.parametrize(("kind", "num_parts"), [("niah_multivalue", 4), ("niah_multiquery", 4)])
def test_several_values_are_asked_for_among_others(kind, num_parts):
    document = draw(kind, 1000, Split.HELD_OUT)
    assert all(len(set(question.parts)) == num_parts for question in document.questions)
    assert len(stated(document.text, CODE_WORD)) > num_parts
