"""What every choice holds where the question ends the cached prompt."""

from __future__ import annotations

import pytest
from entries import NAMESPACE
from observed_prompts import make_layout

from windowkv_service.engine.budget import ASKED_TOKENS, asked_windows
from windowkv_service.engine.prompt import Prompt
from windowkv_service.selection import Leader, QuestionProfile

LAYOUT = make_layout(2, window_size=8)
WINDOW_BYTES = sum(map(LAYOUT.block_bytes, LAYOUT.groups))
PROFILE = QuestionProfile((Leader(1, (0, 1)),))


@pytest.mark.parametrize("num_tokens", [800, 797])
@pytest.mark.parametrize(("fitting", "num_asked"), [(0, 0), (2, 0), (7, 0), (8, 4), (16, 8), (90, 8)])
def test_the_prompts_end_stays_as_far_as_half_of_what_fits(
    num_tokens: int, fitting: int, num_asked: int
) -> None:
    prompt = Prompt(range(num_tokens), NAMESPACE, LAYOUT)
    assert 8 * LAYOUT.window_size == ASKED_TOKENS
    assert asked_windows(prompt, PROFILE, fitting * WINDOW_BYTES) == range(100 - num_asked, 100)


def test_a_prompt_shorter_than_any_question_stays_whole() -> None:
    prompt = Prompt(range(30), NAMESPACE, LAYOUT)
    assert asked_windows(prompt, PROFILE, 90 * WINDOW_BYTES) == range(4)
