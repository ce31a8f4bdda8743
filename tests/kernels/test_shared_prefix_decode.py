"""shared_prefix_decode's reference: each sequence attends as if it had the whole table to itself."""

from __future__ import annotations

import pytest
import torch
from kernel_cases.decode import TINY, DecodeCase, Sequences

from windowkv_kernels import shared_prefix_decode

SHARED = [case for case in TINY if case.num_shared]


@pytest.mark.parametrize("case", SHARED, ids=str)
def test_output_is_the_softmax_over_both_parts(case: DecodeCase) -> None:
    case.check(torch.device("cpu"))


def test_wrong_shared_tables_are_refused() -> None:
    drawn = Sequences.draw(SHARED[0], torch.device("cpu"))
    none = torch.zeros(0, dtype=torch.int64)
    for table, positions in (
        (none, none),
        (drawn.block_table[0], none),
        (drawn.block_table[:1], drawn.key_positions[0]),
        (drawn.block_table[0].int(), drawn.key_positions[0]),
    ):
        with pytest.raises(ValueError):
            shared_prefix_decode(
                drawn.queries,
                drawn.blocks,
                drawn.place,
                table,
                positions,
                drawn.block_table,
                drawn.key_positions,
                drawn.query_positions,
                scale=1.0,
            )
