"""Each metric against examples worked by hand."""

from __future__ import annotations

import pytest

from windowkv_service.quality.metrics import (
    Best,
    Classification,
    code_similarity,
    exact,
    number_share,
    parts,
    rouge_l,
    rouge_l_chinese,
    ruler_all,
    ruler_any,
    token_f1,
    token_f1_chinese,
)


@pytest.mark.parametrize(
    ("said", "score"),
    [(" amber", 100.0), ("amber \n", 100.0), ("amber\nQuestion", 100.0), ("ambers", 0.0), ("", 0.0)],
)
def test_exact_counts_only_the_whole_answer(said: str, score: float) -> None:
    assert exact(said, ("amber",)) == score


@pytest.mark.parametrize(
    ("said", "score"),
    [
        (" 47 82, amber and cobalt", 100.0),
        ("cobalt", 50.0),  # amber is missing, but 47 82 is not asked for here
        ("chambers cobalts", 0.0),  # whole words only
        ("Amber COBALT", 0.0),  # in their own case
        ("amber amber", 50.0),  # a part is found once
        ("", 0.0),
    ],
)
def test_parts_counts_each_expected_part_that_was_said(said: str, score: float) -> None:
    assert parts(said, ("amber", "cobalt")) == score


def test_a_part_of_several_words_is_found_across_any_white_space() -> None:
    assert parts("the code is\n bado  fegi lomo.", ("bado fegi lomo",)) == 100.0
    assert parts("bado fegi", ("bado fegi lomo",)) == 0.0


def test_ruler_finds_strings_in_any_case_and_inside_words() -> None:
    assert ruler_all("VAR abc, XYZs", ("abc", "xyz", "k", "ABC")) == 75.0
    assert ruler_any("It was in Normandy.", ("france", "normandy")) == 100.0
    assert ruler_any("Paris", ("france", "normandy")) == 0.0


def test_best_takes_the_nearest_reference_and_the_first_line_where_it_is_asked_to() -> None:
    references = ("the cat sat", "a dog ran off")
    assert Best(token_f1)("cat sat", references) == 100.0
    assert Best(token_f1)("\ncat sat\nnothing else here", references) == pytest.approx(100 * 4 / 7)
    assert Best(token_f1, is_first_line=True)("\ncat sat\nnothing else here", references) == 100.0


@pytest.mark.parametrize(
    ("said", "reference", "score"),
    [
        ("The Cat!", "a cat", 1.0),  # case, articles and punctuation do not count
        ("cat sat mat", "cat sat on hat", 2 * 2 / (3 + 4)),  # cat and sat are common
        ("cat cat", "cat", 2 / 3),  # each occurrence counts once
        ("dog", "cat", 0.0),
        ("the", "cat", 0.0),  # nothing is left
    ],
)
def test_token_f1(said: str, reference: str, score: float) -> None:
    assert token_f1(said, reference) == pytest.approx(score)


def test_chinese_f1_is_over_characters_without_punctuation() -> None:
    assert token_f1_chinese("北京。", "《北京》") == 1.0
    assert token_f1_chinese("北京市", "北京") == pytest.approx(2 * 2 / 5)
    assert token_f1_chinese("GPT4 模型", "gpt4") == pytest.approx(2 / 4)  # Latin runs stay whole


@pytest.mark.parametrize(
    ("said", "reference", "score"),
    [
        ("a b c d", "a x c y", 2 * 2 / (4 + 4)),  # a c
        ("the cat sat on the mat", "the cat", 2 * 2 / (2 + 5)),  # five different words
        ("c a. b", "a b. c", 1.0),  # sentences find their words anywhere, as sets
        ("b a", "a b", 2 * 1 / 4),  # in one sentence the order counts
        ("", "a b", 0.0),
        ("A b", "a b", 2 * 1 / 4),  # case counts
    ],
)
def test_rouge_l(said: str, reference: str, score: float) -> None:
    assert rouge_l(said, reference) == pytest.approx(score)


def test_rouge_l_agrees_with_the_rouge_package() -> None:
    """Numbers from rouge 1.0.1, Rouge().get_scores([said], [reference])[0]["rouge-l"]["f"]."""
    said = "The agency was founded in 1964. It reports to congress. Its budget grew by ten percent "
    reference = "Founded in 1964, the agency reports to Congress. Since then its budget grew ten percent. "
    assert rouge_l(said, reference) == pytest.approx(0.4375, abs=1e-6)


def test_chinese_rouge_l_is_over_characters() -> None:
    assert rouge_l_chinese("今天开会", "今天不开会") == pytest.approx(2 * 4 / 9)


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [
        ("Location", "Location", 1.0),
        ("Location or Human", "Location", 0.5),
        ("City", "Location", 0.0),
        ("location", "Location", 0.0),
        ("Other Location", "Other Location", 1.0),  # that "Location" stands in it is no second guess
        ("Other Location", "Location", 0.5),
    ],
)
def test_classification_shares_the_point_among_the_classes_named(said: str, right: str, score: float) -> None:
    assert Classification(("Location", "Human", "City", "Other Location"))(said, right) == score


@pytest.mark.parametrize(
    ("said", "reference", "score"),
    [
        ("The answer is 7", "7", 1.0),
        ("7 or 8", "7", 0.5),
        ("Paragraph 17", "Paragraph 7", 0.0),
        ("Paragraph 7.", "Paragraph 7", 1.0),
        ("段落7", "段落7", 1.0),
        ("seven", "7", 0.0),
    ],
)
def test_numbers_share_the_point_among_the_numbers_said(said: str, reference: str, score: float) -> None:
    assert number_share(said, reference) == score


def test_code_similarity_compares_the_first_line_that_is_code() -> None:
    assert code_similarity("\n# a comment\n```python\nreturn x\nreturn y", "return x") == 1.0
    assert code_similarity("abcd", "abxd") == 0.75  # ab and d match: 2 * 3 / 8
    assert code_similarity("return x // 2", "return x") == 0.0
    assert code_similarity("", "return x") == 0.0
