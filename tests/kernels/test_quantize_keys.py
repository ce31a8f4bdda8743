"""quantize_keys: its error bound, its size, and its way to bytes and back."""

import pytest
import torch

from windowkv_kernels import QuantizedKeys, dequantize_keys, quantize_keys

SHAPES = [
    (1, 1, 2, 256),
    (255, 2, 16, 256),
    (256, 2, 64, 256),
    (257, 1, 96, 256),
    (101, 3, 16, 7),
    (13, 2, 6, 13),
]


def random_keys(num_tokens, num_kv_heads, head_dim):
    keys = torch.randn(num_tokens, num_kv_heads, head_dim, generator=torch.Generator().manual_seed(1))
    return keys * torch.logspace(-3, 2, head_dim) + 5  # channels of very different range, not around zero


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_error_stays_within_half_a_step(shape, bits, dtype):
    *sizes, group_tokens = shape
    keys = random_keys(*sizes).to(dtype)
    quantized = quantize_keys(keys, bits=bits, group_tokens=group_tokens)
    error = (dequantize_keys(quantized) - keys.float()).abs()
    for i, group in enumerate(error.split(group_tokens)):
        bound = quantized.step[i] / 2 + 1e-6 * keys.float().abs().max()
        assert bool((group <= bound).all())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bits", [4, 8])
def test_bytes_restore_the_keys_exactly(shape, bits):
    *sizes, group_tokens = shape
    quantized = quantize_keys(random_keys(*sizes), bits=bits, group_tokens=group_tokens)
    data = quantized.flat()
    names = dict(zip(("num_tokens", "num_kv_heads", "head_dim"), sizes, strict=True))
    restored = QuantizedKeys.from_flat(data, bits=bits, group_tokens=group_tokens, **names)
    assert torch.equal(restored.codes, quantized.codes)
    assert torch.equal(restored.low, quantized.low)
    assert torch.equal(restored.step, quantized.step)
    assert torch.equal(restored.flat(), data)
    assert len(data) == quantized.size_bytes == restored.size_bytes
    assert len(data) == QuantizedKeys.count_bytes(*sizes, bits=bits, group_tokens=group_tokens)


def test_size_is_counted_from_the_tensors():
    quantized = quantize_keys(torch.randn(1000, 2, 64), bits=4)
    assert quantized.size_bytes == 1000 * 2 * 32 + 4 * 2 * 64 * 8
    assert (quantized.num_tokens, quantized.num_kv_heads, quantized.head_dim) == (1000, 2, 64)


def test_a_constant_channel_is_exact():
    keys = torch.full((10, 1, 4), 3.25)
    assert torch.equal(dequantize_keys(quantize_keys(keys, bits=4)), keys)


def test_a_wrong_number_of_bytes_is_refused():
    data = quantize_keys(torch.randn(10, 1, 4), bits=8).flat()
    for wrong in (data[:-1], torch.cat([data, data[:1]]), data[:0]):
        with pytest.raises(ValueError, match="bytes"):
            QuantizedKeys.from_flat(wrong, num_tokens=10, num_kv_heads=1, head_dim=4, bits=8)


@pytest.mark.parametrize(
    ("keys", "bits"),
    [
        (torch.randn(4, 1, 4), 2),
        (torch.randn(4, 1, 3), 4),
        (torch.randn(0, 1, 4), 8),
        (torch.randn(4, 4), 8),
        (torch.full((4, 1, 4), float("nan")), 8),
        (torch.full((4, 1, 4), float("inf")), 4),
        (torch.ones(4, 1, 4, dtype=torch.int32), 8),
    ],
    ids=str,
)
def test_keys_that_cannot_be_quantized_are_refused(keys, bits):
    with pytest.raises(ValueError):
        quantize_keys(keys, bits=bits)
