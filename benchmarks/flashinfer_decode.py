"""FlashInfer's batch decode on the blocks that decode_attention reads: a block of one layer is its page."""

from __future__ import annotations

import importlib

import torch
from kernel_problem import BF16, Model, Work
from torch import Tensor

WORKSPACE_BYTES = 128 << 20


def prepare(model: Model, queries: Tensor, blocks: Tensor, table: Tensor) -> Work | None:
    """queries [B, H, 1, D], blocks [N, 1, 2, ω, Hkv, D], all of whose slots are filled, table [B, NB] → the call to
    time, or None where there is no FlashInfer."""
    try:
        flashinfer = importlib.import_module("flashinfer")
    except ImportError:
        return None
    batch, num_blocks = table.shape
    options = {"dtype": torch.int32, "device": table.device}
    workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=table.device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=True)
    wrapper.plan(
        torch.arange(batch + 1, **options) * num_blocks,  # where each table begins
        table.flatten().int(),
        torch.full((batch,), blocks.shape[3], **options),  # tokens in each table's last page
        model.heads,
        model.kv_heads,
        model.head_dim,
        blocks.shape[3],
        q_data_type=BF16,
        kv_data_type=BF16,
        sm_scale=model.head_dim**-0.5,
    )
    rows, pages = queries[:, :, 0].contiguous(), blocks[:, 0]
    return lambda: wrapper.run(rows, pages)
