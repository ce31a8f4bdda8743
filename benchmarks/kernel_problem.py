"""One thing that the kernel benchmark measures, and the models and memory that such things are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BF16 = torch.bfloat16
Work = Callable[[], object]


@dataclass(frozen=True)
class Problem:
    """bytes: what must be read and written at least, as the floor counts it; 0: the floor is one launch.

    goal: the share of the floor to reach, or None. prepare: allocates on a device, and gives the call to time.
    peer: the same for somebody else's kernel on the same work, None where that is not installed.
    """

    operation: str
    shape: str
    bytes: int
    flops: int
    goal: float | None
    prepare: Callable[[torch.device], Work]
    peer: Callable[[torch.device], Work | None] = lambda device: None


@dataclass(frozen=True)
class Model:
    name: str
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def token_bytes(self) -> int:
        """Keys and values of one token in one layer."""
        return 2 * self.kv_heads * self.head_dim * 2


LLAMA = Model("Llama-3.1-8B", 32, 8, 128)
QWEN = Model("Qwen2.5-7B", 28, 4, 128)


def pool(model: Model, num_blocks: int, num_layers: int, window_size: int, device: torch.device) -> Tensor:
    shape = (num_blocks, num_layers, 2, window_size, model.kv_heads, model.head_dim)
    return torch.randn(shape, dtype=BF16, device=device)


def tables(batch: int, kept: int, window_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Blocks scattered over the pool, every slot of them filled."""
    ids = torch.randperm(batch * kept // window_size, device=device).view(batch, -1)
    return ids, torch.arange(kept, device=device).expand(batch, -1).contiguous()
