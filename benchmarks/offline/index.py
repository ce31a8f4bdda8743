"""Leader keys as an index stores them: what is read back, and what they take."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from windowkv_kernels import QuantizedKeys
from windowkv_kernels.reference.quantize_keys import dequantize_keys, quantize_keys

GROUP_TOKENS = 256  # as the service quantizes


class StoredKeys(NamedTuple):
    """keys: [num_tokens, num_kv_heads, head_dim] fp32, after a round trip."""

    keys: Tensor
    size_bytes: int

    @classmethod
    def of(cls, keys: Tensor, bits: int) -> StoredKeys:
        """bits per number: 32, 16 (bfloat16), or a code of 8, 4 or 2 bits with scales per channel."""
        if bits == 32:
            return cls(keys.float(), 4 * keys.numel())
        if bits == 16:
            return cls(keys.to(torch.bfloat16).float(), 2 * keys.numel())
        quantized = quantize_keys(keys, bits, GROUP_TOKENS)
        size_bytes = QuantizedKeys.count_bytes(*keys.shape, bits=bits, group_tokens=GROUP_TOKENS)
        return cls(dequantize_keys(quantized, torch.float32), size_bytes)
