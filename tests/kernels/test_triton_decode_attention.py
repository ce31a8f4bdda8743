"""decode_attention's Triton twin in the interpreter: its arithmetic on sizes that hurt."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kernel_cases.decode import ONE_TOKEN, TINY, DecodeCase, Sequences

pytestmark = pytest.mark.usefixtures("on_triton")
CPU = torch.device("cpu")


@pytest.mark.parametrize("case", TINY, ids=str)
def test_output_is_the_softmax_over_the_visible_slots(case: DecodeCase) -> None:
    case.check(CPU)


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    drawn = Sequences.draw(ONE_TOKEN, CPU)
    drawn.key_positions[1] = -1
    got = drawn.attend(ONE_TOKEN)
    assert bool((got[1] == 0).all())
    assert bool((got[0] != 0).any())


def test_what_invisible_slots_hold_does_not_matter() -> None:
    case = replace(ONE_TOKEN, length=2)
    drawn = Sequences.draw(case, CPU)
    clean = replace(drawn, blocks=drawn.blocks.nan_to_num(0.0))
    assert torch.equal(drawn.attend(case), clean.attend(case))


def test_a_table_may_be_the_front_of_a_wider_one() -> None:
    drawn = Sequences.draw(ONE_TOKEN, CPU)
    wide = torch.nn.functional.pad(drawn.block_table, (0, 5))
    positions = torch.nn.functional.pad(drawn.key_positions, (0, 5 * 16), value=-1)
    num_blocks = drawn.block_table.shape[1]
    view = replace(drawn, block_table=wide[:, :num_blocks], key_positions=positions[:, : num_blocks * 16])
    assert torch.equal(view.attend(ONE_TOKEN), drawn.attend(ONE_TOKEN))
