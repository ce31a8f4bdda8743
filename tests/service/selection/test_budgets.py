"""The shapes of a budget over groups: the numbers of paper and code, and what they share."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windowkv_service.selection.budgets import Claim, grant, group_shares, last_share


def test_the_codes_budgets_are_the_published_runs():
    """Tokens per layer of LLaMA3-8B (32 layers, groups of 8) and Qwen2.5-1.5B (28 layers, groups of 7)."""
    runs = {
        (8, 4, 512): [732, 586, 440, 292],
        (8, 4, 1024): [1463, 1171, 879, 585],
        (8, 4, 2048): [2926, 2341, 1756, 1170],
        (7, 4, 512): [768, 598, 428, 256],
        (7, 4, 2048): [3072, 2390, 1708, 1024],
    }
    for (group_size, num_groups, mean), expected in runs.items():
        shares = group_shares(num_groups, last_share("code", group_size, 0.0))
        assert [share * mean for share in shares] == pytest.approx(expected, abs=2)  # it rounds down twice


def test_the_papers_formula_read_literally_starves_the_last_group():
    shares = group_shares(4, last_share("paper", 8, 0.0))
    assert [share * 2048 for share in shares] == pytest.approx([3950, 2682, 1414, 146], abs=1)


def test_the_codes_shape_is_flat_at_14_layers_and_inverted_beyond():
    assert group_shares(2, last_share("code", 14, 0.0)) == (1.0, 1.0)
    first, last = group_shares(2, last_share("code", 16, 0.0))
    assert first < last


@given(
    num_groups=st.integers(1, 12),
    fraction=st.floats(0.05, 2.0),
    shape=st.sampled_from(["linear", "paper", "uniform"]),
)
def test_shares_average_to_one_on_a_straight_line(num_groups, fraction, shape):
    shares = group_shares(num_groups, last_share(shape, 8, fraction))
    assert sum(shares) / num_groups == pytest.approx(1.0)
    steps = [later - earlier for earlier, later in pairwise(shares)]
    assert steps == pytest.approx([steps[0]] * len(steps)) if steps else shares == (1.0,)


claims = st.lists(
    st.builds(
        Claim,
        share=st.just(0.0) | st.floats(0.01, 2.0),
        window_bytes=st.integers(1, 100),
        num_forced=st.integers(0, 5),
        num_windows=st.integers(5, 60),
    ),
    min_size=1,
    max_size=6,
)


@given(claims=claims, budget_bytes=st.integers(-10, 20_000), redistribute=st.booleans())
def test_grants_fit_the_budget_and_hold_the_forced_windows(claims, budget_bytes, redistribute):
    counts = grant(claims, budget_bytes, redistribute=redistribute)
    for count, claim in zip(counts, claims, strict=True):
        assert claim.num_forced <= count <= claim.num_windows
    taken = sum(count * claim.window_bytes for count, claim in zip(counts, claims, strict=True))
    forced = sum(claim.num_forced * claim.window_bytes for claim in claims)
    assert taken <= max(budget_bytes, forced)


@given(claims=claims, budget_bytes=st.integers(0, 20_000))
def test_with_redistribution_no_further_window_would_fit(claims, budget_bytes):
    counts = grant(claims, budget_bytes, redistribute=True)
    left = budget_bytes - sum(count * claim.window_bytes for count, claim in zip(counts, claims, strict=True))
    growing = [
        c.window_bytes for n, c in zip(counts, claims, strict=True) if n < c.num_windows and c.share > 0
    ]
    assert not growing or left < sum(claim.window_bytes for claim in claims)


def test_what_a_full_group_cannot_use_goes_to_the_others():
    claims = [Claim(1.5, 10, 0, 12), Claim(0.5, 10, 0, 12)]
    assert grant(claims, 160, redistribute=False) == [12, 4]
    assert grant(claims, 200, redistribute=False) == [12, 5]
    assert grant(claims, 200, redistribute=True) == [12, 8]


def test_a_budget_that_fits_to_the_byte_is_used_to_the_byte():
    for num_windows in range(1, 400, 7):
        claims = [Claim(share, 13, 0, 1000) for share in (1.3, 1.0, 0.7)]
        assert sum(grant(claims, 13 * num_windows, redistribute=True)) == num_windows
        assert grant([Claim(1.0, 13, 0, 1000)] * 3, 39 * num_windows, redistribute=False) == [num_windows] * 3
