"""Quantized blocks → blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from windowkv_kernels.formats import QuantizedBlocks


def dequantize_blocks(quantized: QuantizedBlocks, blocks: Tensor, block_ids: Tensor) -> None:
    keys, values = _numbers(quantized).unbind(2)  # [W, γ, ω, Hkv, D]
    keys = _scale(keys, quantized.key_scales.float().unsqueeze(3))
    halves = values.reshape(*values.shape[:-1], 2, values.shape[-1] // 2)
    values = _scale(halves, quantized.value_scales.float().unsqueeze(-1)).flatten(-2)
    blocks.index_copy_(0, block_ids, torch.stack([keys, values], dim=2).to(blocks.dtype))


def _numbers(quantized: QuantizedBlocks) -> Tensor:
    """What the codes stand for before scaling: fp32 [W, γ, 2, ω, Hkv, D]."""
    codes = quantized.codes
    if quantized.codec == "fp8":
        return codes.view(torch.float8_e4m3fn).float()
    if quantized.codec == "int8":
        return codes.view(torch.int8).float()
    return torch.cat([codes & 0xF, codes >> 4], dim=-1).float()


def _scale(numbers: Tensor, scales: Tensor) -> Tensor:
    """numbers [W, γ, …] by scales [W, γ, S, …]: step · code, above low where there is one."""
    step = scales[:, :, -1]
    return step * numbers if scales.shape[2] == 1 else scales[:, :, 0] + step * numbers
