"""Numbers for every seed, step and token: the published generator, evenly spread, and of one step's own."""

from __future__ import annotations

import math

import pytest
import torch

from windowkv_service.model.chance import gumbel, step_keys

WORD = (1 << 64) - 1
STRIDE = 0x9E3779B97F4A7C15


def mixed(state: int) -> int:
    """SplitMix64's output function, in Python's integers."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & WORD
    return state ^ (state >> 31)


def noise(seed: int, step: int, token: int) -> float:
    key = mixed(mixed(seed + STRIDE & WORD) + (step + 1) * STRIDE & WORD)
    uniform = ((mixed(key + (token + 1) * STRIDE & WORD) >> 12) + 0.5) * 2.0**-52
    return -math.log(-math.log(uniform))


def test_the_known_first_numbers_of_the_generator() -> None:
    """Of SplitMix64 with seed 1234567, as published with its reference program."""
    assert [mixed(1234567 + n * STRIDE & WORD) for n in (1, 2, 3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize("seed", [0, 1, 42, 2**62 + 1, 2**63 - 1])
def test_the_noise_is_the_generators(seed: int) -> None:
    steps = torch.tensor([0, 1, 999_999])
    rows = gumbel(step_keys(torch.tensor([seed] * 3), steps), 50)
    expected = [[noise(seed, int(step), token) for token in range(50)] for step in steps]
    torch.testing.assert_close(rows, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_the_noise_spreads_as_gumbels_does() -> None:
    """Of 200 000 numbers the mean is off by less than five of its deviations, and every decile is filled."""
    rows = gumbel(step_keys(torch.arange(20), torch.arange(20) * 7), 10_000).flatten()
    assert abs(float(rows.mean()) - 0.5772156649) < 5 * math.pi / math.sqrt(6 * rows.numel())
    deciles = torch.exp(-torch.exp(-rows)).mul(10).long().bincount(minlength=10)
    assert deciles.numel() == 10
    spread = math.sqrt(rows.numel() * 0.1 * 0.9)
    assert all(abs(int(count) - rows.numel() // 10) < 5 * spread for count in deciles)


def test_neighbouring_seeds_and_steps_have_nothing_in_common() -> None:
    keys = step_keys(torch.arange(50).repeat_interleave(50), torch.arange(50).repeat(50))
    assert keys.unique().numel() == 2500
    rows = gumbel(keys[:60], 2000)
    correlation = torch.corrcoef(rows) - torch.eye(60)
    assert float(correlation.abs().max()) < 6 / math.sqrt(2000)
