"""Randomness without generators: a number for every (seed, step, token), the same on every device.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, figure 17) in wrapping int64 arithmetic: what one request draws at one
step follows from its seed alone, so neither its neighbours in a batch nor the order of the work can change it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """A 64-bit pattern as the int64 that torch takes."""
    return value - (1 << 64) if value >> 63 else value


_STRIDE = _signed(0x9E3779B97F4A7C15)  # of the counter: 2^64 over the golden ratio
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)
_FRACTION_BITS = 52  # with half a step added, all that a double holds below 1: u is never 0 and never 1


def step_keys(seeds: Tensor, steps: Tensor) -> Tensor:
    """int64 [B] each → [B]: where each request's stream of this step begins."""
    return _mix(_mix(seeds + _STRIDE) + (steps + 1) * _STRIDE)


def gumbel(keys: Tensor, num_tokens: int) -> Tensor:
    """keys [B] → [B, num_tokens] float64: Gumbel noise, one number per token id.

    The largest of log p + noise is a draw from p (Gumbel 1954; Maddison et al., arXiv 1411.0030, section 2).
    """
    counters = torch.arange(1, num_tokens + 1, device=keys.device) * _STRIDE
    bits = _shift(_mix(keys[:, None] + counters[None, :]), 64 - _FRACTION_BITS)
    uniform = (bits.double() + 0.5) * 2.0**-_FRACTION_BITS
    return uniform.log_().neg_().log_().neg_()


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift(state, 30)) * _FIRST
    state = (state ^ _shift(state, 27)) * _SECOND
    return state ^ _shift(state, 31)


def _shift(state: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in: torch's own shift copies the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
