"""What a method means under each visibility of the question."""

from __future__ import annotations

import pytest

from windowkv_client import Codec, Retention, Selection
from windowkv_service.quality.arm import Visibility, arms, in_turn
from windowkv_service.quality.method import Method, with_references


def test_only_ours_and_quest_let_the_question_choose() -> None:
    assert (Method("windowkv").selects, Method("windowkv").retains) == (Selection.AUTO, Retention.FULL)
    assert (Method("quest").selects, Method("quest").retains) == (Selection.QUESTION, Retention.FULL)
    for other in ("full", "windowkv-published", "snapkv", "random", "streamingllm"):
        assert Method(other).selects is Selection.PUBLISHED
        assert Method(other).retains is Retention.SELECTED


def test_ours_that_chose_once_keeps_no_more_than_it_chose() -> None:
    once = Method.parse("windowkv@published")
    assert (once.selects, once.retains) == (Selection.PUBLISHED, Retention.SELECTED)


def test_a_control_is_the_same_method_answered_otherwise() -> None:
    control = Method.parse("windowkv@full")
    assert (control.selector, control.name) == ("windowkv", "windowkv@full")
    assert (control.selects, control.retains) == (Selection.FULL, Retention.FULL)


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
    assert [one.method.name for one in in_turn(found)] == ["windowkv", "windowkv", "full", "full"]


def test_the_full_cache_goes_before_what_can_use_its_blocks() -> None:
    found = arms([Method("random"), Method("full")], [0.12], Visibility)
    assert [one.method.is_full for one in in_turn(found)] == [True, True, False, False]


def test_no_method_stands_alone() -> None:
    names = [method.name for method in with_references([Method("windowkv"), Method("random")])]
    assert names == ["full", "windowkv", "random", "streamingllm"]
