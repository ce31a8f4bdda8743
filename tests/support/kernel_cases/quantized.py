"""quantize_keys and dequantize_keys: the stated error bound, and the same meaning of codes as the reference's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from kernel_cases.memory import poisoned

from windowkv_kernels import dequantize_keys, quantize_keys, reference


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


TINY = [
    KeysCase(num_tokens=1, kv_heads=1, head_dim=2),
    *(KeysCase(num_tokens=n, bits=bits) for n in (15, 16, 17) for bits in (4, 8)),
    KeysCase(num_tokens=101, head_dim=96, group_tokens=7, kv_heads=3),
    KeysCase(num_tokens=101, head_dim=13, group_tokens=101, bits=8),
    KeysCase(num_tokens=300, group_tokens=256, head_dim=64, dtype=torch.float16),
    KeysCase(num_tokens=33, group_tokens=256, head_dim=256, bits=8, dtype=torch.float16),
]
LARGE = [
    KeysCase(num_tokens=8191, kv_heads=8, head_dim=128, bits=bits, group_tokens=256, dtype=dtype)
    for bits in (4, 8)
    for dtype in (torch.bfloat16, torch.float16)
] + [KeysCase(num_tokens=1001, kv_heads=3, head_dim=96, group_tokens=13)]
