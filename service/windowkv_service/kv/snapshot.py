"""Blocks ↔ raw bytes. The bytes are a tensor's memory as it lies; what they are is said by the frame around them."""

from __future__ import annotations

import torch
from torch import Tensor


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the host; no copy."""
    return tensor.view(torch.uint8).numpy().data.cast("B")


def write_block(block: Tensor, payload: memoryview) -> None:
    """Fill block [num_layers, 2, window_size, num_kv_heads, head_dim] from its bytes; ValueError on another size."""
    if len(payload) != block.numel() * block.element_size():
        raise ValueError(
            f"a block of {block.numel() * block.element_size()} bytes cannot hold {len(payload)}"
        )
    block.copy_(torch.frombuffer(bytearray(payload), dtype=block.dtype).view(block.shape))


def read_block(block: Tensor) -> memoryview:
    """The bytes of a block, copied to the host."""
    return tensor_bytes(block.detach().cpu().contiguous().clone())
