"""quantize_blocks: its error bounds, its size, each block by itself; plain and in the interpreter."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from kernel_cases.quantized import TINY, BlocksCase

from windowkv_kernels import (
    BLOCK_CODECS,
    BlockCodec,
    QuantizedBlocks,
    dequantize_blocks,
    quantize_blocks,
)

CPU = torch.device("cpu")
CASES = [case for case in TINY if isinstance(case, BlocksCase)]


@pytest.fixture(params=["reference", "triton"])
def either_twin(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "triton":
        request.getfixturevalue("on_triton")
    return


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_error_keeps_the_stated_bound(case: BlocksCase) -> None:
    case.check(CPU)


@pytest.mark.parametrize(("codec", "size"), [("int8", 0.539), ("fp8", 0.539), ("int4", 0.328)])
def test_a_block_takes_so_much_less(codec: BlockCodec, size: float) -> None:
    shape = (8, 2, 16, 8, 128)
    full = 2 * math.prod(shape)
    assert QuantizedBlocks.count_bytes(shape, codec) / full == pytest.approx(size, abs=1e-3)


@pytest.mark.parametrize("codec", BLOCK_CODECS)
def test_each_block_stands_alone(codec: BlockCodec) -> None:
    blocks = BlocksCase(codec, num_blocks=3).draw()
    together = quantize_blocks(blocks, torch.arange(5), codec=codec)
    alone = quantize_blocks(blocks, torch.tensor([3]), codec=codec)
    assert torch.equal(together.packed[3:4], alone.packed)
    moved = QuantizedBlocks(together.packed[3:4].clone(), together.block_shape, codec)
    restored = torch.zeros(2, *blocks.shape[1:])
    dequantize_blocks(moved, restored, torch.tensor([1]))
    assert (restored[1] - blocks[3]).abs().max() < 1.0


@pytest.mark.usefixtures("either_twin")
@pytest.mark.filterwarnings(
    "ignore::RuntimeWarning"
)  # numpy, which the interpreter computes with, says so too
@pytest.mark.parametrize("codec", BLOCK_CODECS)
@pytest.mark.parametrize("trouble", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_comes_back_as_nan_and_nothing_else_does(
    codec: BlockCodec, trouble: float
) -> None:
    blocks = torch.randn(1, 1, 2, 8, 2, 16)
    blocks[0, 0, 0, 3, 1, 5] = trouble  # keys: its channel
    blocks[0, 0, 1, 6, 0, 9] = trouble  # values: its token's half
    restored = torch.zeros_like(blocks)
    dequantize_blocks(quantize_blocks(blocks, torch.tensor([0]), codec=codec), restored, torch.tensor([0]))
    expected = torch.zeros(blocks.shape, dtype=torch.bool)
    expected[0, 0, 0, :, 1, 5] = True
    expected[0, 0, 1, 6, 0, 8:] = True
    assert torch.equal(restored.isnan(), expected)


@pytest.mark.usefixtures("either_twin")
@pytest.mark.parametrize("codec", BLOCK_CODECS)
def test_no_blocks_are_no_work(codec: BlockCodec) -> None:
    blocks, none = torch.ones(2, 1, 2, 4, 1, 2), torch.zeros(0, dtype=torch.int64)
    dequantize_blocks(quantize_blocks(blocks, none, codec=codec), blocks, none)
    assert bool((blocks == 1).all())


def test_e4m3_is_the_standards() -> None:
    """Every code, through a step of 1 and one that is 448 already."""
    codes = torch.arange(256, dtype=torch.uint8)
    exact = codes[(codes & 127) != 127].view(torch.float8_e4m3fn).float()  # 127: NaN
    blocks = torch.zeros(1, 1, 2, 1, 1, 2 * len(exact))
    blocks[0, 0, 1, 0, 0, : len(exact)] = exact
    restored = torch.full_like(blocks, math.nan)
    dequantize_blocks(quantize_blocks(blocks, torch.tensor([0]), codec="fp8"), restored, torch.tensor([0]))
    assert torch.equal(restored, blocks)


@pytest.mark.parametrize(
    "change",
    [
        {"codec": "int2"},
        {"block_ids": torch.tensor([0], dtype=torch.int32)},
        {"block_ids": torch.tensor([[0]])},
        {"blocks": torch.zeros(1, 1, 2, 4, 1, 3)},
        {"blocks": torch.zeros(1, 1, 2, 4, 1, 2).int()},
        {"blocks": torch.zeros(1, 1, 2, 4, 2, 2).transpose(3, 4)},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(change: dict[str, object]) -> None:
    arguments = {"blocks": torch.zeros(1, 1, 2, 4, 1, 2), "block_ids": torch.tensor([0]), "codec": "int8"}
    with pytest.raises(ValueError):
        quantize_blocks(**(arguments | change))


def test_blocks_of_another_shape_are_refused() -> None:
    quantized = quantize_blocks(torch.zeros(1, 1, 2, 4, 1, 2), torch.tensor([0]), codec="int8")
    with pytest.raises(ValueError):
        dequantize_blocks(quantized, torch.zeros(1, 1, 2, 8, 1, 2), torch.tensor([0]))
    with pytest.raises(ValueError):
        dequantize_blocks(quantized, torch.zeros(1, 1, 2, 4, 1, 2), torch.tensor([0, 0]))
