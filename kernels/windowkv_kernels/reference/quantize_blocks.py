"""Blocks → 8 or 4 bits per number: keys per channel over a block's tokens, values per token and half head."""

from __future__ import annotations

import torch
from torch import Tensor

from windowkv_kernels.formats import FP8_LARGEST, BlockCodec, QuantizedBlocks

LEVELS = {"int8": 127.0, "fp8": FP8_LARGEST, "int4": 15.0}  # what a step divides a group's extent into


def quantize_blocks(blocks: Tensor, block_ids: Tensor, codec: BlockCodec) -> QuantizedBlocks:
    quantized = QuantizedBlocks.empty(block_ids.shape[0], tuple(blocks.shape[1:]), codec, blocks.device)
    keys, values = blocks.index_select(0, block_ids).float().unbind(2)  # [W, γ, ω, Hkv, D]
    key_codes, key_scales = _quantize(keys, 2, codec)
    value_codes, value_scales = _quantize(
        values.reshape(*values.shape[:-1], 2, values.shape[-1] // 2), 5, codec
    )
    codes = torch.stack([key_codes, value_codes.flatten(-2)], dim=2)
    if codec == "int4":
        lower, upper = codes.chunk(2, dim=-1)
        codes = lower | upper << 4
    quantized.codes.copy_(codes)
    quantized.key_scales.copy_(key_scales.squeeze(3))
    quantized.value_scales.copy_(value_scales.squeeze(-1))
    return quantized


def _quantize(numbers: Tensor, dim: int, codec: BlockCodec) -> tuple[Tensor, Tensor]:
    """Codes uint8 of numbers [W, γ, …], and scales [W, γ, S, …] of its groups along dim.

    Scales are rounded outwards to bf16, so that codes made with them fit, and what is stored is what was used.
    """
    if codec == "int4":
        low = _round_down(numbers.amin(dim, keepdim=True))
        extent = numbers.amax(dim, keepdim=True) - low
    else:
        low = None
        extent = numbers.abs().amax(dim, keepdim=True)
    step = -_round_down(-extent / LEVELS[codec])
    step = step.masked_fill(~step.isfinite(), float("nan"))  # what was not finite comes back as NaN
    exact = (numbers if low is None else numbers - low) / step.masked_fill(step == 0, 1.0)
    scales = step.unsqueeze(2) if low is None else torch.stack([low, step], dim=2)
    return _codes(exact.nan_to_num(0.0), codec), scales


def _codes(exact: Tensor, codec: BlockCodec) -> Tensor:
    if codec == "fp8":
        return exact.clamp(-FP8_LARGEST, FP8_LARGEST).to(torch.float8_e4m3fn).view(torch.uint8)
    if codec == "int8":
        return exact.round().clamp(-127, 127).to(torch.int8).view(torch.uint8)
    return exact.round().clamp(0, 15).to(torch.uint8)


def _round_down(numbers: Tensor) -> Tensor:
    """To the next bf16 at or below, as fp32: cutting off bits moves towards zero, a carry before it away from zero."""
    bits = numbers.contiguous().view(torch.int32)
    return torch.where(bits < 0, bits + 0xFFFF, bits).bitwise_and(~0xFFFF).view(torch.float32)
