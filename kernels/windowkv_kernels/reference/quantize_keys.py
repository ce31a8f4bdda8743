"""Keys ↔ a few bits per number, per channel, over groups of consecutive tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from windowkv_kernels.formats import QuantizedKeys


def quantize_keys(keys: Tensor, bits: int, group_tokens: int) -> QuantizedKeys:
    groups = token_groups(keys.float(), group_tokens)
    low = torch.stack([group.amin(dim=0) for group in groups])  # [num_groups, Hkv, D]
    high = torch.stack([group.amax(dim=0) for group in groups])
    step = (high - low) / (2**bits - 1)
    if not bool(torch.isfinite(step).all()):
        raise ValueError("keys must be finite")
    divisor = step.masked_fill(step == 0, 1.0)  # a constant channel: all codes are 0
    codes = torch.cat([((group - low[i]) / divisor[i]).round_() for i, group in enumerate(groups)])
    codes = codes.clamp_(0, 2**bits - 1).to(torch.uint8)
    if bits == 4:
        half = codes.shape[2] // 2
        codes = codes[:, :, :half] | codes[:, :, half:] << 4
    return QuantizedKeys(codes, low, step, bits, group_tokens)


def dequantize_keys(quantized: QuantizedKeys, dtype: torch.dtype) -> Tensor:
    codes = quantized.codes
    if quantized.bits == 4:
        codes = torch.cat([codes & 0xF, codes >> 4], dim=2)
    keys = codes.float()  # [n, Hkv, D]
    for i, group in enumerate(token_groups(keys, quantized.group_tokens)):
        group.mul_(quantized.step[i]).add_(quantized.low[i])
    return keys.to(dtype)


def token_groups(keys: Tensor, group_tokens: int) -> list[Tensor]:
    """Views of group_tokens consecutive tokens each; the last may be shorter."""
    return [keys[start : start + group_tokens] for start in range(0, keys.shape[0], group_tokens)]
