"""What only a real GPU shows: that nothing waits for it, and that a CUDA graph can hold a decode step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from kernel_cases.decode import DecodeCase, Sequences
from torch import Tensor

from windowkv_kernels import (
    append_kv,
    decode_attention,
    gather_windows,
    quantize_blocks,
    score_leader_keys,
    score_windows,
    select_windows,
)

STEP = DecodeCase(
    batch=8, heads=32, kv_heads=8, head_dim=128, num_kept=700, num_wider=9, dtype=torch.bfloat16
)


@dataclass(frozen=True)
class NothingWaits:
    """From a prompt's queries to its blocks and the first step on them, without the host looking at a number."""

    def check(self, device: torch.device) -> None:
        with torch.cuda.device(device):
            self._run(device)  # compiles
            torch.cuda.set_sync_debug_mode("error")
            try:
                self._run(device)
            finally:
                torch.cuda.set_sync_debug_mode("default")

    def _run(self, device: torch.device) -> Tensor:
        layers, num_tokens, omega, kv_heads, dim = 4, 1000, 16, 8, 128
        bf16 = {"dtype": torch.bfloat16, "device": device}
        staging = torch.randn(layers, 2, num_tokens, kv_heads, dim, **bf16)
        queries = torch.randn(32, 32, dim, **bf16)
        terms = {"window_size": omega, "scale": dim**-0.5}
        score = score_windows(queries, staging[0, 0], **terms).score
        score_leader_keys(queries, staging[0, 0], top_p=4, **terms)
        (windows,) = select_windows(score[None], [20], forced=(0, 62))
        blocks = torch.zeros(30, layers, 2, omega, kv_heads, dim, **bf16)
        block_ids = torch.arange(20, device=device)
        gather_windows(staging, range(layers), windows, num_tokens, blocks, block_ids)
        quantize_blocks(blocks, block_ids, codec="int4")
        offsets = torch.arange(omega, device=device)
        positions = (windows[:, None] * omega + offsets).view(1, -1)
        new = torch.randn(1, 1, kv_heads, dim, **bf16)
        append_kv(blocks, 1, new, new, block_ids[-1:, None] * omega)
        last = positions[:, -1:]
        return decode_attention(
            queries[None, :, -1:], blocks, 1, block_ids[None], positions, last, scale=dim**-0.5
        )


@dataclass(frozen=True)
class GraphHoldsStep:
    """A graph captured with one batch's tables gives another batch's output once its inputs are overwritten."""

    case: DecodeCase = STEP

    def check(self, device: torch.device) -> None:
        first, second = (Sequences.draw(self.case, device, seed) for seed in (1, 2))
        eager = second.attend(self.case)
        held = replace(first, queries=first.queries.clone(), blocks=first.blocks.clone())
        held.attend(self.case)  # compiles
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = held.attend(self.case)
        for name in ("queries", "blocks", "block_table", "key_positions", "query_positions", "num_filled"):
            getattr(held, name).copy_(getattr(second, name))
        graph.replay()
        torch.cuda.synchronize(device)
        assert torch.equal(out, eager)


LARGE = [NothingWaits(), GraphHoldsStep()]
