"""All ways to compute a chunk's attention say the same: a GPU takes others than a processor."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention.bias import causal_lower_right

from windowkv_service.model.prompt_attention import (
    Terms,
    masked_attention,
    packed_attention,
    prompt_attention,
    visible_keys,
)

CPU = torch.device("cpu")
SIZES = [(1, 1), (1, 9), (5, 5), (4, 11)]


@pytest.mark.parametrize(("num_queries", "num_keys"), SIZES)
def test_without_a_window_it_is_what_the_fused_kernels_call_lower_right(
    num_queries: int, num_keys: int
) -> None:
    fused = causal_lower_right(num_queries, num_keys)._materialize()
    assert torch.equal(visible_keys(num_queries, num_keys, None, CPU), fused)


@pytest.mark.parametrize("sliding_window", [1, 3, 100])
def test_a_window_hides_what_is_farther_back(sliding_window: int) -> None:
    visible = visible_keys(4, 11, sliding_window, CPU)
    for row, position in enumerate(range(7, 11)):
        seen = {key for key in range(11) if visible[row, key]}
        assert seen == set(range(max(0, position - sliding_window + 1), position + 1))


@pytest.mark.parametrize("sliding_window", [None, 3])
@pytest.mark.parametrize(("num_queries", "num_keys"), SIZES)
def test_packed_heads_attend_as_grouped_ones(
    num_queries: int, num_keys: int, sliding_window: int | None
) -> None:
    torch.manual_seed(0)
    queries = torch.randn(1, num_queries, 8, 16).transpose(1, 2)  # as a model gives them
    keys, values = torch.randn(2, 1, 2, num_keys, 16)
    visible = visible_keys(num_queries, num_keys, sliding_window, CPU)
    terms = Terms(0.3, sliding_window, None, None)
    grouped = masked_attention(queries, keys, values, visible, terms)
    torch.testing.assert_close(packed_attention(queries, keys, values, visible, 0.3), grouped)
    attended = prompt_attention(queries, keys, values, terms, lambda: visible)
    torch.testing.assert_close(attended.output, grouped)
