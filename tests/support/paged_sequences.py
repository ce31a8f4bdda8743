"""Sequences on paged memory that is NaN wherever nobody has written, and a tiny model to run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tiny_models import ARCHITECTURES, SHAPE
from torch import Tensor

from windowkv_service.engine.tables import BlockTables, stack_up
from windowkv_service.kv.buffers import Arenas
from windowkv_service.kv.layout import KVLayout
from windowkv_service.kv.sending import on_device
from windowkv_service.model.attention import ATTENTION_NAME
from windowkv_service.model.constants import hold_constants
from windowkv_service.model.decode_steps import DecodeSteps
from windowkv_service.model.runner import Runner

CPU = torch.device("cpu")
WINDOW, NUM_BLOCKS, TAIL_BLOCKS = 4, 60, 3
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
GROWING_ROPE = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}  # by the length seen so far
SIZES = [0, 9, 2]  # windows in front of each sequence's tail


@dataclass(frozen=True)
class PagedSequences:
    """A tiny model, three sequences, and memory that is NaN wherever nobody has written, block 0 included, at which
    the padding of tables points."""

    runner: Runner
    arenas: Arenas
    layout: KVLayout
    tables: Sequence[BlockTables]
    device: torch.device

    @classmethod
    def make(
        cls, device: torch.device = CPU, num_common: int = 0, rope: Mapping[str, Any] = DEFAULT_ROPE
    ) -> PagedSequences:
        """num_common: so many windows, the first, are in all tables, by the same blocks. rope: how it rotates."""
        torch.manual_seed(0)
        model_class, config_class, _ = ARCHITECTURES["llama"]
        module = model_class(config_class(**SHAPE, rope_parameters=dict(rope))).eval().to(device)
        module.set_attn_implementation(ATTENTION_NAME)
        hold_constants(module)
        layout = KVLayout.plan(
            range(4), [None] * 4, group_size=2, window_size=WINDOW, num_kv_heads=2, head_dim=16, itemsize=4
        )
        arenas = Arenas(layout, {2: NUM_BLOCKS}, dtype=torch.float32, device=device)
        arenas.tensors[2].fill_(float("nan"))
        ids = iter((1 + torch.randperm(NUM_BLOCKS - 1)).tolist())
        tables = []
        common = [[next(ids) for _ in range(num_common)] for _ in layout.groups]
        for row in common:
            arenas.tensors[2][row] = torch.randn(len(row), *arenas.tensors[2].shape[1:]).to(device)
        for size in SIZES:
            size = min(size, 12 - num_common)
            own = [sorted(torch.randperm(12 - num_common)[:size].tolist()) for _ in layout.groups]
            windows = [[*range(num_common), *(num_common + window for window in row)] for row in own]
            blocks = [[next(ids) for _ in range(size)] for _ in layout.groups]
            for row in blocks:
                arenas.tensors[2][row] = torch.randn(len(row), *arenas.tensors[2].shape[1:]).to(device)
            tails = [[next(ids) for _ in range(TAIL_BLOCKS)] for _ in layout.groups]
            for row in tails:  # a question's tokens, at most two
                arenas.tensors[2][row[0], :, :, :2] = torch.randn(2, 2, 2, 2, 16).to(device)
            placed = [[*first, *rest] for first, rest in zip(common, blocks, strict=True)]
            tables.append(BlockTables(layout, windows, placed, tails, 12 * WINDOW + 1, device))
        return cls(Runner(module, layout, arenas, device), arenas, layout, tables, device)

    def begin(
        self, steps: DecodeSteps, rows: Sequence[int], tail_length: int = 0, min_shared: int | None = None
    ) -> None:
        lengths = on_device([tail_length + row for row in rows], self.device)
        starts = on_device([self.tables[row].tail_start for row in rows], self.device)
        steps.begin(
            stack_up([self.tables[row] for row in rows], min_shared), lengths + 7, starts + lengths, lengths
        )

    def new_tokens(self, row: int, first: int, length: int) -> tuple[BlockTables, int, Tensor, Tensor]:
        """What a pass takes of one sequence: so many tokens, its tail's from the first-th on."""
        start = self.tables[row].tail_start + first
        token_ids = on_device(
            [[(7 * number + row) % 250 for number in range(start, start + length)]], self.device
        )
        positions = torch.arange(start, start + length, device=self.device)[None]
        return self.tables[row], first, token_ids, positions

    def bits(self) -> Tensor:
        """The arena, comparable where it is NaN."""
        return self.arenas.tensors[2].view(torch.int32)

    def written_slots(self, rows: Sequence[int]) -> dict[int, set[int]]:
        """By group, the slots that the sequences' tails have."""
        return {
            group.index: {
                int(slot) for row in rows for slot in self.tables[row].layers[group.index].rows[0].tail_slots
            }
            for group in self.layout.groups
        }


def generate(
    paged: PagedSequences,
    steps: DecodeSteps,
    rows: Sequence[int],
    num_steps: int = 8,
    min_shared: int | None = None,
) -> list[Tensor]:
    """The logits of greedy steps."""
    logits: list[Tensor] = []
    paged.begin(steps, rows, min_shared=min_shared)
    for _ in range(num_steps):
        logits.append(steps.logits().clone())
        steps.feed(logits[-1].argmax(-1))
    return logits
