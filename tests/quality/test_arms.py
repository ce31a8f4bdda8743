"""What a method means under each visibility of the question."""

from __future__ import annotations

import pytest

from windowkv_client import Codec, Retention, Selection
from windowkv_service.quality.arm import Arm, Visibility, arms, in_turn
from windowkv_service.quality.method import Method, with_references


def arm(name: str, question: Visibility = Visibility.HIDDEN) -> Arm:
    return Arm(Method.parse(name), 0.12, question)


def test_only_ours_lets_a_hidden_question_choose() -> None:
    assert arm("windowkv").selection is Selection.QUESTION
    assert arm("windowkv").retention is Retention.FULL
    for other in ("full", "windowkv-published", "random", "streamingllm"):
        assert arm(other).selection is Selection.PUBLISHED
        assert arm(other).retention is Retention.SELECTED


def test_with_the_question_in_sight_ours_chooses_once_and_pays_for_no_leader_keys() -> None:
    visible = arm("windowkv", Visibility.VISIBLE)
    assert (visible.selection, visible.retention) == (Selection.PUBLISHED, Retention.SELECTED)


@pytest.mark.parametrize("question", Visibility)
def test_with_quest_every_question_chooses(question: Visibility) -> None:
    assert (arm("quest", question).selection, arm("quest", question).retention) == (
        Selection.QUESTION,
        Retention.FULL,
    )


def test_a_control_is_the_same_method_answered_otherwise() -> None:
    control = arm("windowkv@full")
    assert (control.method.selector, control.method.name) == ("windowkv", "windowkv@full")
    assert (control.selection, control.retention) == (Selection.FULL, Retention.FULL)


def test_a_codec_is_part_of_the_method() -> None:
    assert Method.parse("windowkv+int8@full") == Method("windowkv", Selection.FULL, Codec.INT8)
    assert Method.parse("windowkv").codec is Codec.EXACT
    for name in ("full+int4", "windowkv+fp8", "windowkv+int8@full"):
        assert Method.parse(name).name == name


@pytest.mark.parametrize(
    ("name", "trouble"),
    [("windowkv@all", "after the @"), ("windowkv@auto", "after the @"), ("windowkv+int3", r"after the \+")],
)
def test_an_unknown_control_or_codec_is_refused(name: str, trouble: str) -> None:
    with pytest.raises(ValueError, match=trouble):
        Method.parse(name)


def test_the_full_cache_is_measured_once_whatever_the_ratios() -> None:
    methods = [Method("full"), Method("random")]
    found = arms(methods, [0.12, 0.06], [Visibility.HIDDEN])
    assert [(one.method.name, one.kept_ratio) for one in found] == [
        ("full", 1.0),
        ("random", 0.12),
        ("random", 0.06),
    ]


def test_what_fetches_is_asked_before_anything_else_fills_the_device() -> None:
    found = arms([Method("full"), Method("windowkv")], [0.12], Visibility)
    assert [one.retention for one in in_turn(found)] == [Retention.FULL] + [Retention.SELECTED] * 3


def test_the_full_cache_goes_before_what_can_use_its_blocks() -> None:
    found = arms([Method("random"), Method("full")], [0.12], Visibility)
    assert [one.method.is_full for one in in_turn(found)] == [True, True, False, False]


def test_no_method_stands_alone() -> None:
    names = [method.name for method in with_references([Method("windowkv"), Method("random")])]
    assert names == ["full", "windowkv", "random", "streamingllm"]
