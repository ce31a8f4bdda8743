"""Quantized keys and blocks: the stated error bounds, and codes that mean what the reference says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from kernel_cases.memory import poisoned
from torch import Tensor

from windowkv_kernels import (
    BLOCK_CODECS,
    BlockCodec,
    dequantize_blocks,
    dequantize_keys,
    quantize_blocks,
    quantize_keys,
    reference,
)


@dataclass(frozen=True)
class KeysCase:
    num_tokens: int = 67
    kv_heads: int = 2
    head_dim: int = 16
    bits: int = 4
    group_tokens: int = 16
    dtype: torch.dtype = torch.float32

    def check(self, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (self.num_tokens + 3, self.kv_heads, self.head_dim)
        # Channels of very different range, not around zero; one is constant.
        keys = torch.randn(shape, generator=generator) * torch.logspace(-3, 2, self.head_dim) + 5
        keys[:, :, -1] = 3.25
        keys = keys.to(device, self.dtype)[: self.num_tokens]
        with poisoned():
            got = quantize_keys(keys, bits=self.bits, group_tokens=self.group_tokens)
            restored = dequantize_keys(got)
            short = dequantize_keys(got, dtype=self.dtype)
        judge = reference.quantize_keys(keys, self.bits, self.group_tokens)
        assert torch.equal(got.low, judge.low)
        torch.testing.assert_close(got.step, judge.step, atol=0, rtol=1e-6)
        rounding = 2e-6 * keys.abs().max()
        groups = torch.arange(self.num_tokens, device=device) // self.group_tokens
        assert bool(((restored - keys.float()).abs() <= got.step[groups] / 2 + rounding).all())
        means = reference.dequantize_keys(got, torch.float32)
        torch.testing.assert_close(restored, means, atol=float(rounding), rtol=1e-6)
        torch.testing.assert_close(short, means.to(self.dtype), atol=float(rounding), rtol=1e-2)


@dataclass(frozen=True)
class BlocksCase:
    codec: BlockCodec = "int8"
    num_layers: int = 2
    window_size: int = 16
    kv_heads: int = 2
    head_dim: int = 16
    num_blocks: int = 2
    dtype: torch.dtype = torch.float32

    def check(self, device: torch.device) -> None:
        blocks = self.draw().to(device)
        block_ids = torch.arange(
            self.num_blocks, 0, -1, device=device
        )  # one before and one behind stay as they are
        with poisoned():
            got = quantize_blocks(blocks, block_ids, codec=self.codec)
        assert got.packed.shape == (self.num_blocks, got.count_bytes(got.block_shape, self.codec))
        restored = torch.full_like(blocks, -7.0, dtype=torch.float32)
        dequantize_blocks(got, restored, block_ids)
        assert bool((restored[[0, -1]] == -7.0).all())
        exact, error = blocks[block_ids].float(), (restored - blocks.float())[block_ids].abs()
        assert bool((error <= self.bound(exact) + 1e-6 * exact.abs().max()).all())

        judge = torch.full_like(restored, -7.0)
        reference.dequantize_blocks(got, judge, block_ids)
        torch.testing.assert_close(restored, judge, atol=1e-5, rtol=1e-6)  # a GPU fuses step · code + low
        judged = reference.quantize_blocks(blocks, block_ids, self.codec)
        assert torch.equal(got.key_scales, judged.key_scales)
        assert torch.equal(got.value_scales, judged.value_scales)
        is_same = got.codes == judged.codes
        assert is_same.float().mean() > 0.99  # ties may be rounded either way

    def draw(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        shape = (self.num_blocks + 2, self.num_layers, 2, self.window_size, self.kv_heads, self.head_dim)
        # Channels of very different range, not around zero; one is constant, one token is zero.
        blocks = torch.randn(shape, generator=generator) * torch.logspace(-3, 1, self.head_dim) + 0.5
        blocks[..., -1] = 3.25
        blocks[:, :, :, 0] = 0.0
        return blocks.to(self.dtype)

    def bound(self, exact: Tensor) -> Tensor:
        """What the door states, per number, of exact [W, γ, 2, ω, Hkv, D]."""
        keys, values = exact.unbind(2)
        halves = values.unflatten(-1, (2, -1))
        return torch.stack([self._group_bound(keys, 2), self._group_bound(halves, 5).flatten(-2)], dim=2)

    def _group_bound(self, numbers: Tensor, dim: int) -> Tensor:
        largest = numbers.abs().amax(dim, keepdim=True)
        if self.codec == "int8":
            return ((1 + 2**-7) * largest / 127 / 2).expand_as(numbers)
        if self.codec == "fp8":
            return torch.maximum(numbers.abs() / 16, (1 + 2**-7) * largest / 448 / 2**10)
        low, high = numbers.amin(dim, keepdim=True), numbers.amax(dim, keepdim=True)
        return ((1 + 2**-7) * (high - low + low.abs() / 2**7) / 15 / 2).expand_as(numbers)


TINY: list[KeysCase | BlocksCase] = [
    KeysCase(num_tokens=1, kv_heads=1, head_dim=2),
    *(KeysCase(num_tokens=n, bits=bits) for n in (15, 16, 17) for bits in (4, 8)),
    KeysCase(num_tokens=101, head_dim=96, group_tokens=7, kv_heads=3),
    KeysCase(num_tokens=101, head_dim=13, group_tokens=101, bits=8),
    KeysCase(num_tokens=300, group_tokens=256, head_dim=64, dtype=torch.float16),
    KeysCase(num_tokens=33, group_tokens=256, head_dim=256, bits=8, dtype=torch.float16),
    *(KeysCase(num_tokens=17, kv_heads=1, head_dim=128, bits=bits) for bits in (4, 8)),
    *(BlocksCase(codec, window_size=3, kv_heads=1, head_dim=128, num_layers=1) for codec in BLOCK_CODECS),
    *(BlocksCase(codec) for codec in BLOCK_CODECS),
    *(BlocksCase(codec, window_size=7, kv_heads=3, head_dim=96, num_layers=1) for codec in BLOCK_CODECS),
    *(
        BlocksCase(codec, window_size=1, kv_heads=1, head_dim=64, dtype=torch.float16)
        for codec in BLOCK_CODECS
    ),
    *(BlocksCase(codec, window_size=128, kv_heads=1, num_layers=1, num_blocks=1) for codec in BLOCK_CODECS),
    BlocksCase("int4", kv_heads=8, head_dim=256, num_blocks=1, num_layers=1),
    BlocksCase("fp8", kv_heads=8, head_dim=2),
]
LARGE: list[KeysCase | BlocksCase] = [
    KeysCase(num_tokens=8191, kv_heads=8, head_dim=128, bits=bits, group_tokens=256, dtype=dtype)
    for bits in (4, 8)
    for dtype in (torch.bfloat16, torch.float16)
] + [
    KeysCase(num_tokens=1001, kv_heads=3, head_dim=96, group_tokens=13),
    *(
        BlocksCase(codec, 8, window_size, 8, 128, 65, dtype)
        for codec in BLOCK_CODECS
        for window_size, dtype in ((16, torch.bfloat16), (32, torch.float16))
    ),
    BlocksCase("int4", 3, 128, 1, 256, 5, torch.bfloat16),
]
