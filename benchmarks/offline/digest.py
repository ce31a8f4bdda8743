"""Digests: what could stand for the tokens that a question does not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from windowkv_kernels.reference.quantize_keys import dequantize_keys, quantize_keys

BITS = 8


@dataclass(frozen=True)
class Digests:
    """The mean key and the mean value of every num_tokens consecutive tokens, at 8 bits per number.

    A digest is attended like a token, with log(num_tokens) added to its score: were the keys all equal, that would be
    exact. A ragged end has no digest. keys, values: layer → [num_digests, num_kv_heads, head_dim] fp32.
    """

    keys: Mapping[int, Tensor]
    values: Mapping[int, Tensor]
    num_tokens: int
    size_bytes: int

    @classmethod
    def of(cls, layers: Mapping[int, tuple[Tensor, Tensor]], num_tokens: int) -> Digests:
        """layers: layer → its keys and values [n, num_kv_heads, head_dim]."""
        keys, values, size_bytes = {}, {}, 0
        for layer, (layer_keys, layer_values) in layers.items():
            keys[layer], key_bytes = _mean(layer_keys, num_tokens)
            values[layer], value_bytes = _mean(layer_values, num_tokens)
            size_bytes += key_bytes + value_bytes
        return cls(keys, values, num_tokens, size_bytes)

    @property
    def bias(self) -> float:
        return log(self.num_tokens)

    def of_unread(self, tokens: Tensor) -> Tensor:
        """The digests that cover none of the tokens [S] that are read."""
        num_digests = next(iter(self.keys.values())).shape[0]
        is_unread = torch.ones(num_digests + 1, dtype=torch.bool)
        is_unread[(tokens // self.num_tokens).clamp(max=num_digests)] = False
        return is_unread[:num_digests].nonzero()[:, 0]


def _mean(numbers: Tensor, num_tokens: int) -> tuple[Tensor, int]:
    """[n, Hkv, D] → the means [n // num_tokens, Hkv, D] after a round trip, and their bytes."""
    whole = numbers.shape[0] // num_tokens * num_tokens
    means = numbers[:whole].float().reshape(-1, num_tokens, *numbers.shape[1:]).mean(1)
    if not means.shape[0]:
        return means, 0
    quantized = quantize_keys(means, BITS, 256)
    return dequantize_keys(quantized, torch.float32), quantized.size_bytes
