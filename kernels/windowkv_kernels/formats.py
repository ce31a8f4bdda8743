"""What operations return and store: window scores, and keys and blocks at a few bits per number."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

CODE_BITS = (4, 8)
BlockCodec = Literal["int8", "fp8", "int4"]
BLOCK_CODECS: tuple[BlockCodec, ...] = ("int8", "fp8", "int4")
FP8_LARGEST = 448.0  # of e4m3


class WindowScores(NamedTuple):
    """Per window, in order of position. Higher scores stay.

    score: [num_windows] fp32. mass: [num_windows] fp32, the share of the observers' attention (mean over
    heads and queries) that falls into the window; sums to 1.
    """

    score: Tensor
    mass: Tensor

    def first(self, num_windows: int) -> WindowScores:
        """Of the first windows alone, shares of what falls into them; 0 where nothing does."""
        if num_windows >= len(self.score):
            return self
        mass = self.mass[:num_windows]
        least = torch.finfo(mass.dtype).tiny
        return WindowScores(self.score[:num_windows], mass / mass.sum().clamp_min(least))


@dataclass(frozen=True)
class QuantizedKeys:
    """Keys [n, Hkv, D] at 4 or 8 bits per number, in groups of group_tokens tokens, the last one ragged.

    codes: uint8 [n, Hkv, D·bits/8]; at 4 bits byte c holds channel c (low half) and c + D/2 (high half).
    low, step: fp32 [num_groups, Hkv, D]; a number is low + step · code.
    """

    codes: Tensor
    low: Tensor
    step: Tensor
    bits: int
    group_tokens: int

    @property
    def num_tokens(self) -> int:
        return self.codes.shape[0]

    @property
    def num_kv_heads(self) -> int:
        return self.codes.shape[1]

    @property
    def head_dim(self) -> int:
        return self.low.shape[2]

    @property
    def size_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.codes, self.low, self.step))

    def head(self, head: int) -> QuantizedKeys:
        """The keys of one head, a view: [n, 1, D]."""
        codes, low, step = (tensor[:, head : head + 1] for tensor in (self.codes, self.low, self.step))
        return QuantizedKeys(codes, low, step, self.bits, self.group_tokens)

    def flat(self) -> Tensor:
        """codes, low and step one after the other as bytes, [size_bytes] uint8; from_flat restores them exactly."""
        return torch.cat([tensor.flatten().view(torch.uint8) for tensor in (self.codes, self.low, self.step)])

    @classmethod
    def from_flat(
        cls,
        flat: Tensor,
        *,
        num_tokens: int,
        num_kv_heads: int,
        head_dim: int,
        bits: int,
        group_tokens: int = 256,
    ) -> QuantizedKeys:
        """What flat() gave, on any device; codes are a view of it. Any other length is refused."""
        scales = (ceil(num_tokens / group_tokens), num_kv_heads, head_dim)
        codes = (num_tokens, num_kv_heads, head_dim * bits // 8)
        expected = cls.count_bytes(num_tokens, num_kv_heads, head_dim, bits=bits, group_tokens=group_tokens)
        if len(flat) != expected:
            raise ValueError(f"quantized keys of this shape take {expected} bytes, not {len(flat)}")
        # Copied: behind the codes they need not lie where a float can.
        low, step = flat[prod(codes) :].clone().view(torch.float32).view(2, *scales)
        return cls(flat[: prod(codes)].view(codes), low, step, bits, group_tokens)

    @staticmethod
    def count_bytes(
        num_tokens: int, num_kv_heads: int, head_dim: int, *, bits: int, group_tokens: int = 256
    ) -> int:
        """size_bytes of the keys of num_tokens, without making them."""
        per_token = num_kv_heads * (head_dim * bits // 8)
        return num_tokens * per_token + ceil(num_tokens / group_tokens) * num_kv_heads * head_dim * 8


@dataclass(frozen=True)
class QuantizedBlocks:
    """W blocks [γ, 2, ω, Hkv, D] at 8 or 4 bits per number, each in one contiguous piece that stands alone.

    packed: uint8 [W, bytes per block], per block one after the other:
        codes         [γ, 2, ω, Hkv, D · bits / 8]; at 4 bits byte c holds channel c (low half) and c + D/2 (high half)
        key scales    bf16 [γ, S, Hkv, D]: per channel, over the block's ω tokens
        value scales  bf16 [γ, S, ω, Hkv, 2]: per token and half of the channels
    Of the S scales the last is the step; int4 has low before it, the others stand around zero.
    """

    packed: Tensor
    block_shape: tuple[int, ...]
    codec: BlockCodec

    @property
    def num_blocks(self) -> int:
        return self.packed.shape[0]

    @property
    def bits(self) -> int:
        return 4 if self.codec == "int4" else 8

    @property
    def num_scales(self) -> int:
        return 2 if self.codec == "int4" else 1

    @property
    def codes(self) -> Tensor:
        """[W, γ, 2, ω, Hkv, D · bits / 8], a view."""
        *outer, head_dim = self.block_shape
        shape = (*outer, head_dim * self.bits // 8)
        return self.packed[:, : prod(shape)].view(-1, *shape)

    @property
    def key_scales(self) -> Tensor:
        """bf16 [W, γ, S, Hkv, D], a view."""
        num_layers, _, _, num_kv_heads, head_dim = self.block_shape
        begin = self.codes[0].numel() if self.num_blocks else 0
        shape = (num_layers, self.num_scales, num_kv_heads, head_dim)
        return self.packed[:, begin : begin + 2 * prod(shape)].view(torch.bfloat16).view(-1, *shape)

    @property
    def value_scales(self) -> Tensor:
        """bf16 [W, γ, S, ω, Hkv, 2], a view."""
        num_layers, _, window_size, num_kv_heads, _ = self.block_shape
        shape = (num_layers, self.num_scales, window_size, num_kv_heads, 2)
        return self.packed[:, self.packed.shape[1] - 2 * prod(shape) :].view(torch.bfloat16).view(-1, *shape)

    @classmethod
    def empty(
        cls,
        num_blocks: int,
        block_shape: tuple[int, ...],
        codec: BlockCodec,
        device: torch.device,
    ) -> QuantizedBlocks:
        size = cls.count_bytes(block_shape, codec)
        return cls(torch.empty(num_blocks, size, dtype=torch.uint8, device=device), block_shape, codec)

    @staticmethod
    def count_bytes(block_shape: tuple[int, ...], codec: BlockCodec) -> int:
        """Of one block."""
        num_layers, _, window_size, num_kv_heads, head_dim = block_shape
        bits, num_scales = (4, 2) if codec == "int4" else (8, 1)
        codes = prod(block_shape) * bits // 8
        scales = num_layers * num_scales * num_kv_heads * (head_dim + 2 * window_size)
        return codes + 2 * scales
