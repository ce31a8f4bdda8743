"""The signal that TASK_AUTO decides by."""

import pytest
import torch

from windowkv_service.domain.requests import Task
from windowkv_service.selection.task import decide_task, effective_share


def test_attention_spread_evenly_is_shared_by_all_windows():
    assert effective_share(torch.ones(101)) == pytest.approx(1.0, abs=1e-5)
    assert decide_task([torch.ones(101)]) is Task.AGGREGATION


def test_attention_on_one_window_is_localization_and_the_middle_leader_decides():
    flat, peaked = torch.ones(101), torch.full((101,), 1e-6)
    peaked[40] = 1.0
    assert effective_share(peaked) < 0.02
    assert decide_task([peaked]) is Task.LOCALIZATION
    assert decide_task([flat, peaked, peaked]) is Task.LOCALIZATION
    assert decide_task([flat, peaked, flat]) is Task.AGGREGATION


def test_the_attention_sink_says_nothing_about_the_task():
    sink = torch.ones(101)
    sink[0] = 1000.0
    assert decide_task([sink]) is Task.AGGREGATION


def test_windows_without_review_tokens_do_not_count():
    score = torch.ones(30)
    score[-2:] = float("-inf")
    assert effective_share(score) == pytest.approx(1.0, abs=1e-5)


def test_a_short_prompt_and_no_leader_are_localization():
    assert decide_task([torch.ones(5)]) is Task.LOCALIZATION
    assert decide_task([]) is Task.LOCALIZATION
