"""Blocks as they lie below the device: whole, or as the codes and scales of a codec.

What comes up from below is written into blocks of the model's own numbers. So that an answer does not depend on whether
its cache has been away, blocks of another codec than the exact one hold these numbers from their first answer on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

import windowkv_kernels as kernels
from windowkv_service.domain.codec import Codec
from windowkv_service.kv.sending import on_device

_QUANTIZED: Mapping[Codec, kernels.BlockCodec] = {Codec.INT8: "int8", Codec.FP8: "fp8", Codec.INT4: "int4"}


@dataclass(frozen=True)
class Arrival:
    """Blocks on their way up. targets: where their bytes are to land, one contiguous tensor each. unpack: to be called
    once they have, makes them the blocks that they stand for."""

    targets: Sequence[Tensor]
    unpack: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Packing:
    """Of blocks [N, γ, 2, ω, num_kv_heads, head_dim], which may be the places block_ids of an arena.

    in_strips: a block holds γ · num_kv_heads strips [2, ω, head_dim], each with scales of its own.
    """

    codec: Codec = Codec.EXACT
    in_strips: bool = False

    def size_bytes(self, shape: Sequence[int], itemsize: int) -> int:
        """Of one block [γ, 2, ω, num_kv_heads, head_dim]."""
        if self.codec.is_exact:
            return prod(shape) * itemsize
        return kernels.QuantizedBlocks.count_bytes(tuple(shape), _QUANTIZED[self.codec])

    def pack(self, blocks: Tensor) -> Tensor:
        """[N, size_bytes] uint8; of exact ones a view."""
        if self.codec.is_exact:
            return blocks.flatten(1).view(torch.uint8)
        return self._quantized(blocks, torch.arange(len(blocks), device=blocks.device)).packed

    def round(self, blocks: Tensor, block_ids: Sequence[int]) -> None:
        """Give blocks block_ids, in place, the numbers that they would come up with."""
        if not self.codec.is_exact:
            ids = on_device(block_ids, blocks.device)
            kernels.dequantize_blocks(self._quantized(blocks, ids), self._as_scaled(blocks), ids)

    def arrive(self, blocks: Tensor, block_ids: Sequence[int]) -> Arrival:
        """Places for what comes from below and is to become blocks block_ids; exact bytes go there at once."""
        if self.codec.is_exact:
            return Arrival([blocks[block_id] for block_id in block_ids])
        size = self.size_bytes(blocks.shape[1:], blocks.element_size())
        packed = torch.empty(len(block_ids), size, dtype=torch.uint8, device=blocks.device)
        return Arrival(packed.unbind(), partial(self._unpack, packed, blocks, block_ids))

    def _unpack(self, packed: Tensor, blocks: Tensor, block_ids: Sequence[int]) -> None:
        scaled = self._as_scaled(blocks)
        quantized = kernels.QuantizedBlocks(packed, tuple(scaled.shape[1:]), _QUANTIZED[self.codec])
        kernels.dequantize_blocks(quantized, scaled, on_device(block_ids, blocks.device))

    def _quantized(self, blocks: Tensor, ids: Tensor) -> kernels.QuantizedBlocks:
        return kernels.quantize_blocks(self._as_scaled(blocks), ids, codec=_QUANTIZED[self.codec])

    def _as_scaled(self, blocks: Tensor) -> Tensor:
        """The blocks as what shares scales lies in them: a strip is a layer of one KV head. A view."""
        if not self.in_strips:
            return blocks
        count, num_layers, _, window_size, num_kv_heads, head_dim = blocks.shape
        return blocks.view(count, num_layers * num_kv_heads, 2, window_size, 1, head_dim)
