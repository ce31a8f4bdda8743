"""gather_windows, scatter_windows and append_kv: exact copies, judged slot by slot."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from windowkv_kernels import append_kv, gather_windows, scatter_windows

UNTOUCHED = -7.0


@dataclass(frozen=True)
class MoveCase:
    """The last window is ragged unless window_size divides num_tokens."""

    num_tokens: int = 37
    window_size: int = 8
    kv_heads: int = 2
    head_dim: int = 16
    layers: tuple[int, ...] = (3, 0)
    dtype: torch.dtype = torch.float32

    @property
    def num_windows(self) -> int:
        return -(-self.num_tokens // self.window_size)

    def check(self, device: torch.device) -> None:
        """Some windows go to blocks and back; everything else stays as it was."""
        generator = torch.Generator().manual_seed(0)
        capacity = self.num_tokens + 5
        shape = (max(self.layers) + 1, 2, capacity, self.kv_heads, self.head_dim)
        staging = torch.randn(shape, generator=generator).to(self.dtype)
        staging[:, :, self.num_tokens :] = math.nan  # unwritten staging may hold anything
        windows = torch.randperm(self.num_windows, generator=generator)[: self.num_windows // 2 + 1]
        block_ids = torch.randperm(self.num_windows + 3, generator=generator)[: len(windows)]
        blocks = self._empty_blocks(self.num_windows + 3, device)
        moved = (windows.to(device), self.num_tokens, blocks, block_ids.to(device))
        gather_windows(staging.to(device), self.layers, *moved)
        expected = self._empty_blocks(self.num_windows + 3, torch.device("cpu"))
        expected[block_ids] = self._cut(staging)[windows]
        assert torch.equal(blocks.cpu(), expected)

        restored = torch.full_like(staging, UNTOUCHED, device=device)
        scatter_windows(
            blocks, block_ids.to(device), restored, self.layers, windows.to(device), self.num_tokens
        )
        token_windows = torch.arange(capacity) // self.window_size
        is_moved = torch.isin(token_windows, windows) & (torch.arange(capacity) < self.num_tokens)
        back = torch.full_like(staging, UNTOUCHED)
        for layer in self.layers:
            back[layer][:, is_moved] = staging[layer][:, is_moved]
        assert torch.equal(restored.cpu(), back)

    def _empty_blocks(self, num_blocks: int, device: torch.device) -> Tensor:
        shape = (num_blocks, len(self.layers), 2, self.window_size, self.kv_heads, self.head_dim)
        return torch.full(shape, UNTOUCHED, dtype=self.dtype, device=device)

    def _cut(self, staging: Tensor) -> Tensor:
        """All windows as blocks, zeros past the prompt."""
        tokens = staging[list(self.layers), :, : self.num_tokens]
        padding = self.num_windows * self.window_size - self.num_tokens
        padded = torch.nn.functional.pad(tokens, (0, 0, 0, 0, 0, padding))
        return padded.unflatten(2, (self.num_windows, self.window_size)).movedim(2, 0)


@dataclass(frozen=True)
class AppendCase:
    batch: int = 3
    length: int = 1
    window_size: int = 8
    kv_heads: int = 2
    head_dim: int = 16
    dtype: torch.dtype = torch.float32

    def check(self, device: torch.device) -> None:
        """Every token lands in its slot, the skipped one nowhere."""
        generator = torch.Generator().manual_seed(0)
        num_layers, place, num_blocks = 3, 1, self.batch * self.length + 2
        shape = (self.batch, self.kv_heads, self.length, self.head_dim)
        # As a model gives them: keys after RoPE [B, Hkv, m, D], values still [B, m, Hkv, D] in memory.
        keys = torch.randn(shape, generator=generator).to(self.dtype).transpose(1, 2)
        values = torch.randn(keys.shape, generator=generator).to(self.dtype)
        slots = torch.randperm(num_blocks * self.window_size, generator=generator)[: self.batch * self.length]
        slots[-1] = -1
        pool = (num_blocks, num_layers, 2, self.window_size, self.kv_heads, self.head_dim)
        blocks = torch.full(pool, UNTOUCHED, dtype=self.dtype)
        expected = blocks.clone()
        for slot, key, value in zip(slots.tolist(), keys.flatten(0, 1), values.flatten(0, 1), strict=True):
            if slot >= 0:
                block, offset = divmod(slot, self.window_size)
                expected[block, place, 0, offset], expected[block, place, 1, offset] = key, value
        on_device = blocks.to(device)
        slots = slots.view(self.batch, self.length).to(device)
        append_kv(on_device, place, keys.to(device), values.to(device), slots)
        assert torch.equal(on_device.cpu(), expected)


TINY = [
    *(MoveCase(num_tokens=n) for n in (1, 7, 8, 9)),
    MoveCase(window_size=1, num_tokens=5),
    MoveCase(window_size=7, kv_heads=3, head_dim=6, num_tokens=101, layers=(1,)),
    MoveCase(window_size=128, kv_heads=1, head_dim=96, num_tokens=127, layers=(4, 2, 0), dtype=torch.float16),
    MoveCase(window_size=16, kv_heads=8, head_dim=64, num_tokens=33, dtype=torch.bfloat16),
    *(MoveCase(window_size=2, kv_heads=1, head_dim=dim, num_tokens=3, layers=(0,)) for dim in (96, 128, 256)),
    AppendCase(),
    AppendCase(batch=1),
    *(AppendCase(batch=2, kv_heads=1, head_dim=dim) for dim in (64, 128)),
    AppendCase(length=5, window_size=7, kv_heads=3, head_dim=96, dtype=torch.bfloat16),
    AppendCase(window_size=1, kv_heads=1, head_dim=256, dtype=torch.float16),
]
LARGE = [
    MoveCase(
        num_tokens=8191,
        window_size=16,
        kv_heads=8,
        head_dim=128,
        layers=tuple(range(8)),
        dtype=torch.bfloat16,
    ),
    MoveCase(
        num_tokens=4097, window_size=32, kv_heads=4, head_dim=128, layers=(6, 1, 3), dtype=torch.float16
    ),
    MoveCase(num_tokens=1000, window_size=7, kv_heads=1, head_dim=96, layers=(0, 1)),
    AppendCase(batch=64, window_size=16, kv_heads=8, head_dim=128, dtype=torch.bfloat16),
    AppendCase(batch=2, length=257, window_size=32, kv_heads=4, head_dim=128, dtype=torch.float16),
]
