"""Blocks ↔ raw bytes. The bytes are a tensor's memory as it lies; what they are is said by the frame around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import windowkv_kernels as kernels
from windowkv_service.kv.buffers import Staging
from windowkv_service.kv.layout import KVGroup, KVLayout


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


def stage_out(
    staging: Staging, layout: KVLayout, group: KVGroup, windows: Sequence[int], num_tokens: int
) -> list[memoryview]:
    """Windows of a prefilled prompt as bytes on the host, one piece per window, in one copy; a ragged end is zeroed."""
    blocks = torch.empty(
        (len(windows), *layout.block_shape(group)), dtype=staging.tensor.dtype, device=staging.tensor.device
    )
    device = staging.tensor.device
    kernels.gather_windows(
        staging.tensor,
        [staging.rows[layer] for layer in group.layers],
        torch.tensor(windows, dtype=torch.long, device=device),
        num_tokens,
        blocks,
        torch.arange(len(windows), device=device),
    )
    if not windows:
        return []
    whole, size = tensor_bytes(blocks.cpu().flatten()), layout.block_bytes(group)
    return [whole[start : start + size] for start in range(0, len(whole), size)]
