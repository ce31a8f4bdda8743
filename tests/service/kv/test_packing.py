"""Blocks as they lie below: within the codec's bound, as large as stated, the same whichever way they came."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases.quantized import BlocksCase
from torch import Tensor

from windowkv_service.domain.codec import Codec
from windowkv_service.kv.packing import Packing

LOSSY = [codec for codec in Codec if not codec.is_exact]
HALF_A_PLACE = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}  # of the number itself
SHARES = {
    Codec.EXACT: 1.0,
    Codec.INT8: 0.539,
    Codec.FP8: 0.539,
    Codec.INT4: 0.328,
}  # of bf16, Llama-3-8B's blocks

shapes = st.tuples(
    st.integers(1, 3),
    st.just(2),
    st.sampled_from([1, 3, 7, 8, 16, 17]),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([2, 16, 26]),
)
dtypes = st.sampled_from(list(HALF_A_PLACE))


def draw(count: int, shape: tuple[int, ...], dtype: torch.dtype, seed: int, scale: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.logspace(-2, 1, shape[-1])
    return (torch.randn((count, *shape), generator=generator) * spread * scale).to(dtype)


def sent(packing: Packing, blocks: Tensor) -> Tensor:
    """Down, as bytes, and up again, to other places of another arena."""
    packed = packing.pack(blocks)
    assert packed.shape == (len(blocks), packing.size_bytes(blocks.shape[1:], blocks.element_size()))
    below = [bytearray(row.numpy().tobytes()) for row in packed]
    arena = torch.full((len(blocks) + 2, *blocks.shape[1:]), math.nan, dtype=blocks.dtype)
    places = list(range(len(blocks), 0, -1))
    arrival = packing.arrive(arena, places)
    for target, payload in zip(arrival.targets, below, strict=True):
        target.flatten().view(torch.uint8).copy_(torch.frombuffer(payload, dtype=torch.uint8))
    arrival.unpack()
    assert bool(arena[[0, -1]].isnan().all()), "a place was written that was nobody's"
    return arena[places]


def bound(codec: Codec, exact: Tensor) -> Tensor:
    """What the kernel states, and the rounding of what comes back to the blocks' own dtype."""
    stated = BlocksCase(codec.value).bound(exact.float())  # type: ignore[arg-type]
    return stated + (exact.float().abs() + stated) * HALF_A_PLACE[exact.dtype] + 1e-6 * exact.abs().max()


@pytest.mark.parametrize("codec", LOSSY)
@given(
    shape=shapes, dtype=dtypes, count=st.integers(1, 3), seed=st.integers(0, 99), scale=st.floats(0.01, 10)
)
def test_what_comes_back_is_within_the_stated_bound(
    codec: Codec, shape: tuple[int, ...], dtype: torch.dtype, count: int, seed: int, scale: float
) -> None:
    blocks = draw(count, shape, dtype, seed, scale)
    restored = sent(Packing(codec), blocks)
    assert bool(((restored.float() - blocks.float()).abs() <= bound(codec, blocks)).all())


@pytest.mark.parametrize("codec", LOSSY)
@given(shape=shapes, dtype=dtypes, seed=st.integers(0, 99))
def test_each_strip_has_scales_of_its_own(
    codec: Codec, shape: tuple[int, ...], dtype: torch.dtype, seed: int
) -> None:
    num_layers, _, window_size, num_heads, head_dim = shape
    strips = draw(2 * num_layers * num_heads, (1, 2, window_size, 1, head_dim), dtype, seed, 1.0)
    strips *= torch.logspace(-1, 1, len(strips)).view(-1, 1, 1, 1, 1, 1)  # of very different size
    restored = sent(Packing(codec, in_strips=True), strips.view(2, *shape)).view(strips.shape)
    assert bool(((restored.float() - strips.float()).abs() <= bound(codec, strips)).all())


@given(shape=shapes, dtype=dtypes, in_strips=st.booleans())
def test_what_is_exact_comes_back_bit_by_bit(
    shape: tuple[int, ...], dtype: torch.dtype, in_strips: bool
) -> None:
    blocks = draw(3, shape, dtype, 0, 1.0)
    blocks[1, 0, 0, 0, 0, 0] = -0.0
    packing = Packing(Codec.EXACT, in_strips)
    restored = sent(packing, blocks)
    assert torch.equal(restored.view(torch.uint8), blocks.view(torch.uint8))
    packing.round(blocks, [0, 1, 2])
    assert torch.equal(restored, blocks)


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("in_strips", [False, True])
@pytest.mark.parametrize("dtype", HALF_A_PLACE, ids=str)
def test_a_block_that_never_left_holds_the_numbers_of_one_that_came_back(
    codec: Codec, in_strips: bool, dtype: torch.dtype
) -> None:
    blocks, packing = draw(4, (2, 2, 8, 2, 16), dtype, 5, 1.0), Packing(codec, in_strips)
    restored, untouched = sent(packing, blocks), blocks[1].clone()
    packing.round(blocks, [0, 3, 2])
    assert torch.equal(blocks[[0, 3, 2]], restored[[0, 3, 2]])
    assert torch.equal(blocks[1], untouched)


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("in_strips", [False, True])
def test_a_block_takes_so_much_less_below(codec: Codec, in_strips: bool) -> None:
    shape = (8, 2, 16, 8, 128)
    share = Packing(codec, in_strips).size_bytes(shape, 2) / (2 * math.prod(shape))
    assert share == pytest.approx(SHARES[codec], abs=1e-3)
