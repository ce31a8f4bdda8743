"""Choosing windows at the question: profiles, their defaults, and what they choose."""

import dataclasses

import pytest
import torch
from observed_prompts import ObservedPrompt, block_bytes_of, make_layout

from windowkv_kernels import WindowScores, quantize_keys
from windowkv_service.domain.requests import Task
from windowkv_service.errors import UnsupportedModel
from windowkv_service.selection import (
    Leader,
    QuestionProfile,
    choose_windows,
    default_profile,
    resident_windows,
)


def scores_of(*values):
    score = torch.tensor(values, dtype=torch.float32)
    return WindowScores(score, score / score.sum())


def test_the_first_windows_alone_share_what_falls_into_them():
    scores = WindowScores(torch.tensor([3.0, 1.0, 9.0]), torch.tensor([0.3, 0.1, 0.6]))
    assert scores.first(3) is scores
    torch.testing.assert_close(scores.first(2).mass, torch.tensor([0.75, 0.25]))
    assert scores.first(2).score.tolist() == [3.0, 1.0]
    unseen = WindowScores(scores.score, torch.tensor([0.0, 0.0, 1.0]))
    assert unseen.first(2).mass.tolist() == [0.0, 0.0]


def test_every_group_reads_what_its_leader_chose():
    layout = make_layout(4, window_size=8)
    profile = QuestionProfile((Leader(1, (0, 1)), Leader(2, (2, 3))), keep_first=False, keep_last_windows=0)
    scores = {1: scores_of(1, 9, 2, 8, 3, 1), 2: scores_of(7, 1, 1, 6, 1, 9)}
    budget_bytes = 4 * 2 * layout.block_bytes(layout.groups[0])
    got = choose_windows(scores, profile, layout, 48, budget_bytes)
    assert got.windows == ((1, 3), (1, 3), (0, 5), (0, 5))
    assert got.fidelity == pytest.approx((17 / 24 + 16 / 25) / 2)
    assert got.task is Task.LOCALIZATION


def test_first_and_last_windows_are_kept_before_the_best():
    layout = make_layout(1, window_size=8)
    profile = QuestionProfile((Leader(0, (0,)),), keep_first=True, keep_last_windows=2)
    scores = {0: scores_of(1, 9, 2, 8, 3, 1)}
    block = layout.block_bytes(layout.groups[0])
    assert choose_windows(scores, profile, layout, 48, 6 * block).windows == ((0, 1, 2, 3, 4, 5),)
    scores = {0: scores_of(1, 9, 2, 8, 3, 1, 6, 5, 2, 1)}
    assert choose_windows(scores, profile, layout, 80, 6 * block).windows == ((0, 1, 3, 6, 8, 9),)


def test_where_hardly_anything_fits_the_best_windows_come_before_first_and_last():
    layout = make_layout(1, window_size=8)
    profile = QuestionProfile((Leader(0, (0,)),), keep_first=True, keep_last_windows=2)
    scores = {0: scores_of(1, 9, 2, 8, 3, 1, 6, 5, 2, 1)}
    block = layout.block_bytes(layout.groups[0])
    assert choose_windows(scores, profile, layout, 80, 3 * block).windows == ((1, 3, 6),)
    assert choose_windows(scores, profile, layout, 80, block).windows == ((1,),)
    assert choose_windows(scores, profile, layout, 80, 0).windows == ((1,),)  # a table is never empty


def test_what_the_device_holds_between_questions_is_what_every_choice_begins_with():
    layout = make_layout(2, window_size=8, sliding={1: 16})
    profile = QuestionProfile((Leader(0, (0,)),), keep_first=True, keep_last_windows=2)
    scores = {0: scores_of(1, 9, 2, 8, 3, 1, 6, 5, 2, 1)}
    block = layout.block_bytes(layout.groups[0])
    for num_fitting, expected in [(6, (0, 8, 9)), (5, ())]:
        budget = (num_fitting + 2) * block
        resident = resident_windows(profile, layout, 80, budget)
        assert resident == (expected, (8, 9))
        chosen = choose_windows(scores, profile, layout, 80, budget).windows
        assert all(set(held) <= set(windows) for held, windows in zip(resident, chosen, strict=True))


def test_windows_that_are_held_anyway_are_chosen_first():
    layout = make_layout(1, window_size=8)
    profile = QuestionProfile((Leader(0, (0,)),), keep_first=False, keep_last_windows=0)
    scores = {0: scores_of(1, 9, 2, 8, 3, 1, 6, 5, 2, 1)}
    budget = 3 * layout.block_bytes(layout.groups[0])
    got = choose_windows(scores, profile, layout, 80, budget, forced=frozenset({0, 9}))
    assert got.windows == ((0, 1, 9),)


def test_sliding_groups_are_charged_first_and_keep_what_they_see():
    layout = make_layout(3, window_size=8, sliding={1: 16})
    profile = QuestionProfile((Leader(0, (0, 1)),), keep_first=False, keep_last_windows=0)
    assert [group.is_selectable for group in layout.groups] == [True, True, False]
    scores = {0: scores_of(1, 9, 2, 8, 3, 1, 5, 4)}
    budget_bytes = (2 + 2 * 3) * layout.block_bytes(layout.groups[0])
    got = choose_windows(scores, profile, layout, 64, budget_bytes)
    assert got.windows == ((1, 3, 6), (1, 3, 6), (6, 7))
    assert block_bytes_of(layout, got.windows) == budget_bytes


def test_of_windows_with_equal_scores_the_earlier_stays():
    layout = make_layout(1, window_size=8)
    profile = QuestionProfile((Leader(0, (0,)),), keep_first=False, keep_last_windows=0)
    scores = {0: scores_of(*[1] * 100)}
    got = choose_windows(scores, profile, layout, 800, 3 * layout.block_bytes(layout.groups[0]))
    assert got.windows == ((0, 1, 2),)


def test_the_last_question_tokens_vote():
    layout = make_layout(1, num_kv_heads=1)
    prompt = ObservedPrompt(layout, 100)
    queries = prompt.queries[0]
    profile = QuestionProfile((Leader(0, (0,)),), vote_tokens=3)
    options = {"window_size": 8, "scale": 0.3}
    got = profile.score(queries[:, :10], prompt.keys[0], **options)
    assert torch.equal(got.score, profile.score(queries[:, 7:10], prompt.keys[0], **options).score)
    assert not torch.equal(got.score, profile.score(queries[:, 6:9], prompt.keys[0], **options).score)
    few = profile.score(queries[:, :2], prompt.keys[0], **options)  # fewer than vote_tokens: all vote
    assert few.mass.sum().item() == pytest.approx(1.0, abs=1e-5)


def test_a_quantized_index_finds_the_window_that_the_exact_keys_find():
    layout = make_layout(1, num_kv_heads=1, head_dim=16)
    prompt = ObservedPrompt(layout, 500, heads_per_kv=4)
    prompt.keys[0][300] = prompt.queries[0][:, -4:].mean(dim=(0, 1)) * 3
    profile = QuestionProfile((Leader(0, (0,)),), top_p=1)
    quantized = quantize_keys(prompt.keys[0], bits=profile.index_bits)
    options = {"window_size": 8, "scale": 0.25}
    exact = profile.score(prompt.queries[0][:, -4:], prompt.keys[0], **options)
    got = profile.score(prompt.queries[0][:, -4:], quantized, **options)
    assert got.score.argmax() == exact.score.argmax() == 300 // 8


def test_the_index_is_counted_as_it_is_stored():
    layout = make_layout(4, num_kv_heads=2, head_dim=16)
    profile = QuestionProfile((Leader(1, (0, 1)), Leader(2, (2, 3))), index_bits=4)
    quantized = quantize_keys(torch.randn(777, 2, 16), bits=4)
    assert profile.index_bytes(layout, 777) == 2 * quantized.size_bytes


def test_the_digest_follows_what_determines_the_stored_index_and_nothing_else():
    profile = QuestionProfile((Leader(1, (0, 1)), Leader(2, (2, 3))))
    same = dataclasses.replace(profile, vote_tokens=3, top_p=2, keep_first=False, keep_last_windows=4)
    assert same.digest == profile.digest
    assert len(profile.digest) == 32
    others = [
        dataclasses.replace(profile, index_bits=8),
        QuestionProfile((Leader(1, (0, 1, 2, 3)),)),
        QuestionProfile((Leader(0, (0, 1)), Leader(2, (2, 3)))),
    ]
    assert len({other.digest for other in [profile, *others]}) == 4


@pytest.mark.parametrize(
    ("num_layers", "group_size", "expected"),
    [
        (4, 1, [Leader(1, (0, 1, 2, 3))]),
        (8, 2, [Leader(3, (0, 1, 2, 3))]),
        (1, 1, [Leader(0, (0,))]),
        (9, 2, [Leader(3, (0, 1, 2, 3)), Leader(8, (4,))]),
        (32, 8, [Leader(3, (0,)), Leader(11, (1,)), Leader(19, (2,)), Leader(27, (3,))]),
    ],
)
def test_the_default_leader_is_just_below_the_middle_of_up_to_eight_layers(num_layers, group_size, expected):
    layout = make_layout(num_layers, group_size=group_size)
    profile = default_profile(layout)
    assert list(profile.leaders) == expected
    profile.check(layout)


def test_the_default_leads_only_layers_that_own_full_attention_kv():
    layout = make_layout(10, group_size=2, sliding={0: 16, 1: 16, 5: 16}, readers={8: 6, 9: 7})
    profile = default_profile(layout)
    assert profile.leaders == (Leader(4, (2, 3, 4)),)
    profile.check(layout)


def test_a_model_without_full_attention_has_nothing_to_choose():
    with pytest.raises(UnsupportedModel):
        default_profile(make_layout(2, sliding={0: 16, 1: 16}))


@pytest.mark.parametrize(
    "leaders",
    [
        (Leader(1, (0, 1)),),  # groups 2 and 3 have no leader
        (Leader(1, (0, 1, 2, 3)), Leader(2, (3,))),  # group 3 has two
        (Leader(9, (0, 1, 2, 3)),),
        (Leader(1, (0, 1, 2, 3, 4)),),
    ],
    ids=str,
)
def test_a_profile_that_does_not_fit_the_model_is_refused(leaders):
    with pytest.raises(UnsupportedModel):
        QuestionProfile(leaders).check(make_layout(4))


@pytest.mark.parametrize(
    "change",
    [
        {"leaders": ()},
        {"leaders": (Leader(1, (0,)), Leader(1, (1,)))},
        {"index_bits": 2},
        {"vote_tokens": 0},
        {"top_p": 0},
        {"keep_last_windows": -1},
    ],
    ids=str,
)
def test_a_profile_without_sense_is_refused(change):
    with pytest.raises(UnsupportedModel):
        QuestionProfile(**({"leaders": (Leader(0, (0,)),)} | change))
