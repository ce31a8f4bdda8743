"""Tensors that lie where or as a kernel cannot read them are refused at the door: a GPU would read other memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from windowkv_kernels import (
    append_kv,
    decode_attention,
    dequantize_blocks,
    gather_windows,
    quantize_blocks,
    quantize_keys,
    scatter_windows,
    score_leader_keys,
    score_windows,
    shared_prefix_decode,
)

Operation = Callable[..., object]
BLOCKS = torch.zeros(3, 2, 2, 4, 1, 8)
STAGING = torch.zeros(2, 2, 12, 1, 8)
QUERIES, KEYS = torch.zeros(2, 2, 8), torch.zeros(12, 1, 8)
ONE, SLOTS = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.int64)
NEW, TOKEN = torch.zeros(1, 1, 1, 8), torch.zeros(1, 1, dtype=torch.int64)
INDEX = quantize_keys(KEYS, bits=4)
PACKED = quantize_blocks(BLOCKS, ONE, codec="int8")
TWO = torch.arange(2)
PAIR = quantize_blocks(BLOCKS, TWO, codec="int8")
ATTEND = (torch.zeros(1, 2, 1, 8), BLOCKS, 0)


def elsewhere(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


SHARED = (*ATTEND, ONE, SLOTS[0])
CALLS: list[tuple[Operation, tuple[object, ...]]] = [
    (score_windows, (QUERIES, elsewhere(KEYS))),
    (score_leader_keys, (elsewhere(QUERIES), KEYS)),
    (score_leader_keys, (QUERIES, replace(INDEX, low=elsewhere(INDEX.low)))),
    (quantize_blocks, (BLOCKS, elsewhere(ONE))),
    (dequantize_blocks, (replace(PACKED, packed=elsewhere(PACKED.packed)), BLOCKS, ONE)),
    (gather_windows, (STAGING, [0, 1], elsewhere(ONE), 12, BLOCKS, ONE)),
    (scatter_windows, (BLOCKS, elsewhere(ONE), STAGING, [0, 1], ONE, 12)),
    (append_kv, (BLOCKS, 0, NEW, NEW, elsewhere(TOKEN))),
    (decode_attention, (*ATTEND, elsewhere(TOKEN), SLOTS, TOKEN)),
    (decode_attention, (*ATTEND, TOKEN, SLOTS, TOKEN, elsewhere(ONE))),
    (shared_prefix_decode, (*SHARED, TOKEN, SLOTS, elsewhere(TOKEN))),
    (shared_prefix_decode, (*ATTEND, elsewhere(ONE), SLOTS[0], TOKEN, SLOTS, TOKEN)),
]
OPTIONS: dict[Operation, dict[str, object]] = {
    score_windows: {"window_size": 4, "scale": 1.0},
    score_leader_keys: {"window_size": 4, "scale": 1.0},
    quantize_blocks: {"codec": "int8"},
    decode_attention: {"scale": 1.0},
    shared_prefix_decode: {"scale": 1.0},
}


@pytest.mark.parametrize(("operation", "arguments"), CALLS, ids=lambda value: getattr(value, "__name__", ""))
def test_tensors_of_two_devices_are_refused(operation: Operation, arguments: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="one device"):
        operation(*arguments, **OPTIONS.get(operation, {}))


SPREAD = torch.zeros(6, 2, 2, 4, 1, 8)[::2]  # blocks with holes between them


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        (gather_windows, (STAGING, [0, 1], ONE, 12, SPREAD, ONE)),
        (gather_windows, (torch.zeros(2, 2, 12, 2, 8)[:, :, :, :1], [0, 1], ONE, 12, BLOCKS, ONE)),
        (scatter_windows, (SPREAD, ONE, STAGING, [0, 1], ONE, 12)),
        (append_kv, (SPREAD, 0, NEW, NEW, TOKEN)),
        (decode_attention, (ATTEND[0], SPREAD, 0, TOKEN, SLOTS, TOKEN)),
        (quantize_blocks, (SPREAD, ONE)),
        (dequantize_blocks, (PACKED, SPREAD, ONE)),
        (dequantize_blocks, (replace(PAIR, packed=PAIR.packed.repeat(2, 1)[::2]), BLOCKS, TWO)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_memory_with_holes_is_refused(operation: Operation, arguments: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="contiguous"):
        operation(*arguments, **OPTIONS.get(operation, {}))


@pytest.mark.parametrize("layers", [[0, 2], [-1, 0]])
def test_rows_that_staging_does_not_have_are_refused(layers: list[int]) -> None:
    with pytest.raises(ValueError, match="rows of staging"):
        gather_windows(STAGING, layers, ONE, 12, BLOCKS, ONE)
