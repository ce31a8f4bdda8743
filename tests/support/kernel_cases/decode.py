"""decode_attention and shared_prefix_decode on random sequences over one pool, judged by a softmax in fp64."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from kernel_cases.memory import poisoned
from torch import Tensor

from windowkv_kernels import decode_attention, shared_prefix_decode

# Of an output of size about 1: fp32 rounding of sums of some hundred terms; for the short dtypes one rounding of the
# weights, one of the output.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class DecodeCase:
    """num_kept: slots of the longest sequence before its new tokens; the others are shorter, down to nothing.

    num_shared: blocks that all tables begin with, through shared_prefix_decode; 0: decode_attention.
    num_wider: empty blocks at the end of every table, of which num_filled tells.
    """

    batch: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    window_size: int = 16
    num_kept: int = 40
    length: int = 1
    dtype: torch.dtype = torch.float32
    sliding_window: int | None = None
    softcap: float | None = None
    has_sinks: bool = False
    num_shared: int = 0
    num_wider: int = 0

    def check(self, device: torch.device) -> None:
        drawn = Sequences.draw(self, device)
        with poisoned():
            got = drawn.attend(self)
        expected = drawn.softmax(self)
        assert got.dtype == self.dtype
        torch.testing.assert_close(
            got.double(), expected, atol=TOLERANCE[self.dtype], rtol=TOLERANCE[self.dtype]
        )


@dataclass(frozen=True)
class Sequences:
    """Random arguments of decode_attention. What no query may see is NaN."""

    queries: Tensor
    blocks: Tensor
    place: int
    block_table: Tensor
    key_positions: Tensor
    query_positions: Tensor
    num_filled: Tensor | None
    sinks: Tensor | None

    @classmethod
    def draw(cls, case: DecodeCase, device: torch.device, seed: int = 0) -> Sequences:
        generator = torch.Generator().manual_seed(seed)
        omega, num_layers, place = case.window_size, 3, 1
        num_blocks = (
            -(-(case.num_kept + case.length) // omega) + 1 + case.num_wider
        )  # at least one stays empty
        num_slots = num_blocks * omega
        pool = case.batch * num_blocks + 2
        table = torch.randperm(pool, generator=generator)[: case.batch * num_blocks].view(case.batch, -1)
        # Kept windows lie apart: positions jump. Each sequence is shorter than the one before it.
        counts = case.length + (case.num_kept - torch.arange(case.batch) * (omega + 3)).clamp(min=0)
        gaps = torch.randint(1, 9, (case.batch, num_slots), generator=generator)
        is_filled = torch.arange(num_slots) < counts[:, None]
        positions = gaps.cumsum(1).masked_fill(~is_filled, -1)
        last = counts[:, None] - case.length + torch.arange(case.length)
        kv = torch.randn(case.batch, num_slots, 2, case.kv_heads, case.head_dim, generator=generator)
        kv[~is_filled] = math.nan
        blocks = torch.full(
            (pool, num_layers, 2, omega, case.kv_heads, case.head_dim), math.nan, dtype=case.dtype
        )
        blocks[table.flatten(), place] = (
            kv.view(-1, omega, 2, case.kv_heads, case.head_dim).transpose(1, 2).to(case.dtype)
        )
        if case.num_shared:  # what the first sequence begins with, all do
            shared = positions[0, : case.num_shared * omega]
            positions[1:] = positions[1:].where(positions[1:] < 0, positions[1:] + shared.max())
            table[:, : case.num_shared] = table[0, : case.num_shared]
            positions[:, : case.num_shared * omega] = shared
        # As a model gives them: [B, m, H, D] seen as [B, H, m, D].
        queries = torch.randn(case.batch, case.length, case.heads, case.head_dim, generator=generator)
        sinks = torch.linspace(-3, 3, case.heads) if case.has_sinks else None
        return cls(
            queries.to(case.dtype).transpose(1, 2).to(device),
            blocks.to(device),
            place,
            table.to(device),
            positions.to(device),
            positions.gather(1, last).to(device),
            (counts - case.num_shared * omega).clamp(min=0).to(device) if case.num_wider else None,
            None if sinks is None else sinks.to(device),
        )

    def attend(self, case: DecodeCase) -> Tensor:
        terms = {
            "scale": case.head_dim**-0.5,
            "sliding_window": case.sliding_window,
            "softcap": case.softcap,
            "sinks": self.sinks,
        }
        pool = (self.queries, self.blocks, self.place)
        if not case.num_shared:
            tables = (self.block_table, self.key_positions, self.query_positions, self.num_filled)
            return decode_attention(*pool, *tables, **terms)
        num_slots = case.num_shared * case.window_size
        shared = (self.block_table[0, : case.num_shared], self.key_positions[0, :num_slots])
        own = (self.block_table[:, case.num_shared :], self.key_positions[:, num_slots:])
        num_shared = None
        if case.num_wider:  # the shared table may be wider too
            num_shared = torch.tensor([num_slots], device=self.queries.device)
            pad = torch.nn.functional.pad
            more = 7 * case.window_size
            shared = (pad(shared[0], (0, 7)), pad(shared[1], (0, more), value=-1))
        return shared_prefix_decode(
            *pool, *shared, *own, self.query_positions, self.num_filled, num_shared, **terms
        )

    def softmax(self, case: DecodeCase) -> Tensor:
        """[B, H, m, D] in fp64, from the definition."""
        kv = self.blocks[self.block_table, self.place].double()  # [B, NB, 2, ω, Hkv, D]
        keys, values = kv.transpose(1, 2).flatten(2, 3).unbind(1)  # [B, T, Hkv, D]
        keys, values = (x.repeat_interleave(case.heads // case.kv_heads, dim=2) for x in (keys, values))
        visible = (self.key_positions >= 0)[:, None] & (
            self.key_positions[:, None] <= self.query_positions[:, :, None]
        )
        if case.sliding_window is not None:
            visible &= self.key_positions[:, None] > self.query_positions[:, :, None] - case.sliding_window
        logits = torch.einsum("bhmd,bthd->bhmt", self.queries.double(), keys) * case.head_dim**-0.5
        if case.softcap is not None:
            logits = case.softcap * torch.tanh(logits / case.softcap)
        logits = logits.masked_fill(~visible[:, None], -math.inf)
        if self.sinks is not None:
            sinks = self.sinks.double()[None, :, None, None].expand(*logits.shape[:3], 1)
            logits = torch.cat([logits, sinks], dim=-1)
        weights = logits.softmax(-1).nan_to_num(0.0)[..., : keys.shape[1]]  # sees nothing: zeros
        return torch.einsum("bhmt,bthd->bhmd", weights, values.nan_to_num(0.0))


ONE_TOKEN = DecodeCase()
# Sizes that hurt; a few programs each, for the interpreter.
TINY = [
    DecodeCase(batch=1, heads=1, kv_heads=1, num_kept=0),
    *(DecodeCase(batch=1, num_kept=kept) for kept in (15, 16, 17)),
    DecodeCase(batch=1, window_size=7, num_kept=101),  # no power of two anywhere
    DecodeCase(batch=1, window_size=1, num_kept=13),
    DecodeCase(batch=1, window_size=128, num_kept=127),
    DecodeCase(batch=3, heads=8, kv_heads=1, num_kept=67),  # 8 to 1
    DecodeCase(
        batch=1, heads=8, kv_heads=1, length=5, num_kept=31
    ),  # a question's chunk: rows beyond one tile
    DecodeCase(batch=1, heads=2, kv_heads=2, length=17, num_kept=3),
    *(DecodeCase(batch=1, heads=2, kv_heads=1, head_dim=dim, num_kept=17) for dim in (64, 96, 128, 256)),
    DecodeCase(batch=1, heads=2, kv_heads=1, num_kept=601),  # several pieces to merge
    DecodeCase(batch=2, dtype=torch.float16, num_kept=50, length=2),
    DecodeCase(sliding_window=1),
    DecodeCase(sliding_window=20, length=3, num_kept=70),
    DecodeCase(batch=1, sliding_window=2, length=3, num_kept=40),  # slots between the queries' windows
    DecodeCase(softcap=2.0, length=2),
    DecodeCase(has_sinks=True),
    DecodeCase(batch=3, num_kept=80, num_wider=3),
    DecodeCase(batch=1, heads=2, kv_heads=1, num_kept=601, num_wider=70),  # several pieces, cut on the device
    DecodeCase(num_shared=2, num_kept=300, num_wider=40, length=2),
    DecodeCase(num_shared=1, num_kept=20),
    DecodeCase(num_shared=3, num_kept=60, batch=5, heads=8, kv_heads=1),  # 40 rows on the shared blocks
    DecodeCase(num_shared=40, num_kept=700, batch=2, heads=2, kv_heads=1),  # several pieces of both parts
    DecodeCase(
        num_shared=2, num_kept=70, length=3, window_size=7, has_sinks=True, softcap=4.0, sliding_window=40
    ),
    DecodeCase(softcap=5.0, has_sinks=True, sliding_window=30, dtype=torch.float16, length=2),
]
# What models ask for, on a real GPU.
LARGE = [
    replace(case, dtype=dtype)
    for dtype in (torch.bfloat16, torch.float16)
    for case in (
        DecodeCase(batch=4, heads=32, kv_heads=8, head_dim=128, num_kept=5000),
        DecodeCase(batch=1, heads=28, kv_heads=4, head_dim=128, num_kept=3001, window_size=32),
        DecodeCase(batch=64, heads=32, kv_heads=8, head_dim=128, num_kept=700),
        DecodeCase(batch=4, heads=32, kv_heads=8, head_dim=128, num_kept=5000, num_wider=700),
        DecodeCase(batch=2, heads=8, kv_heads=1, head_dim=256, num_kept=2000, length=33, sliding_window=512),
        DecodeCase(
            batch=3, heads=64, kv_heads=8, head_dim=64, num_kept=1500, has_sinks=True, sliding_window=128
        ),
        DecodeCase(batch=2, heads=32, kv_heads=32, head_dim=96, num_kept=1200, softcap=30.0, window_size=64),
        DecodeCase(batch=1, heads=32, kv_heads=8, head_dim=128, num_kept=4096, length=256, window_size=128),
        DecodeCase(batch=32, heads=32, kv_heads=8, head_dim=128, num_kept=3000, num_shared=120),
        DecodeCase(
            batch=9,
            heads=28,
            kv_heads=4,
            head_dim=128,
            num_kept=2100,
            num_shared=50,
            window_size=32,
            length=4,
        ),
    )
]
