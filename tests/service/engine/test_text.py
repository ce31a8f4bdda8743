"""An answer's text: cut before the first stop string, never saying what may yet turn out to be the beginning of one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windowkv_service.engine.text import AnswerText


class Spelled:
    """Token n is the n-th of the pieces that it was made with."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = pieces

    def push(self, token_id: int) -> str:
        return self._pieces[token_id]


def say(pieces: Sequence[str], stops: Sequence[str]) -> tuple[list[str], AnswerText]:
    """What comes out for each piece, until it stops."""
    text = AnswerText(Spelled(pieces), stops)
    said: list[str] = []
    for token_id in range(len(pieces)):
        said.append(text.push(token_id))
        if text.is_stopped:
            break
    return said, text


def test_without_stop_strings_each_piece_comes_at_once() -> None:
    said, text = say(["to", "be", " or"], [])
    assert said == ["to", "be", " or"]
    assert text.finish() == ""


@pytest.mark.parametrize(
    ("pieces", "stop", "expected"),
    [
        (["abc"], "b", ["a"]),
        (["a", "b", "c"], "bc", ["a", "", ""]),
        (["ab", "cd", "ef"], "cdef", ["ab", "", ""]),
        (["a", "a", "a", "b"], "aab", ["", "", "a", ""]),
        (["stop"], "stop", [""]),
        (["x", "stop and more"], "stop", ["x", ""]),
        (["é", "🦆x"], "🦆", ["é", ""]),
    ],
)
def test_a_stop_string_is_found_across_pieces(pieces: list[str], stop: str, expected: list[str]) -> None:
    said, text = say(pieces, [stop])
    assert said == expected
    assert text.is_stopped
    assert text.finish() == ""


def test_what_was_held_back_comes_when_it_is_no_stop_string_after_all() -> None:
    said, text = say(["a", "st", "oc", "k"], ["stop"])
    assert said == ["a", "", "stoc", "k"]
    assert not text.is_stopped


def test_what_is_held_back_at_the_end_comes_with_finish() -> None:
    said, text = say(["a", "sto"], ["stop"])
    assert said == ["a", ""]
    assert text.finish() == "sto"
    assert text.finish() == ""


def test_the_stop_string_that_begins_first_counts() -> None:
    said, _ = say(["one two three"], ["three", "two"])
    assert said == ["one "]


def test_while_it_may_not_stop_nothing_is_held_back_and_nothing_of_it_counts_later() -> None:
    text = AnswerText(Spelled(["s", "top", "stop"]), ["stop"])
    assert text.push(0, may_stop=False) == "s"
    assert text.push(1) == "top"
    assert text.push(2) == ""
    assert text.is_stopped


letters = st.text(alphabet="ab", max_size=3)
stop_strings = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3)


@given(st.lists(letters, max_size=12), stop_strings)
def test_the_pieces_join_to_the_whole_up_to_the_first_stop_string(
    pieces: list[str], stops: list[str]
) -> None:
    """The oracle looks at everything that has been said after each piece."""
    whole, expected = "", None
    for piece in pieces:
        whole += piece
        ends = [end for end in map(whole.find, stops) if end >= 0]
        if ends:
            expected = whole[: min(ends)]
            break
    said, text = say(pieces, stops)
    assert text.is_stopped == (expected is not None)
    assert "".join(said) + text.finish() == (whole if expected is None else expected)


@given(st.lists(letters, max_size=12), stop_strings)
def test_what_has_been_said_is_never_taken_back(pieces: list[str], stops: list[str]) -> None:
    """Whatever has come out stays true when any more follows."""
    for length in range(len(pieces)):
        earlier, _ = say(pieces[:length], stops)
        later, text = say(pieces, stops)
        assert ("".join(later) + text.finish()).startswith("".join(earlier))
