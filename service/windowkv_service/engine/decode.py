"""The DECODE step: one token for every running sequence."""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch

from windowkv_service.engine.resources import Resources
from windowkv_service.engine.sequence import Sequence
from windowkv_service.engine.tables import BatchTables
from windowkv_service.model.sampler import sample


class DecodeBatch:
    """Keeps the padded tables while the same sequences run on."""

    def __init__(self, resources: Resources) -> None:
        self._runner = resources.runner
        self._metrics = resources.metrics.requests
        self._device = resources.model.device
        self._window_size = resources.model.layout.window_size
        self._sequences: list[Sequence] = []
        self._tables: BatchTables | None = None

    def step(self, sequences: Many[Sequence]) -> None:
        """Run each sequence's last token and accept the next."""
        tables = self._tables_of(sequences)
        token_ids = torch.tensor([[sequence.last_token] for sequence in sequences], device=self._device)
        positions = torch.tensor([[sequence.position] for sequence in sequences], device=self._device)
        tail_lengths = [sequence.position - sequence.tables.tail_start for sequence in sequences]
        logits = self._runner.logits(token_ids, positions, tables.step(tail_lengths))
        for sequence, sampled in zip(
            sequences, sample(logits, [sequence.sampler for sequence in sequences]), strict=True
        ):
            before = sequence.last_token_time
            try:
                sequence.accept(sampled)
            except Exception as error:  # a tokenizer is somebody else's; what it trips over is one answer's
                sequence.fault = error
                continue
            self._metrics.token_after(sequence.last_token_time - before)

    def _tables_of(self, sequences: Many[Sequence]) -> BatchTables:
        if self._tables is None or self._sequences != list(sequences):
            self._sequences = list(sequences)
            self._tables = BatchTables([sequence.tables for sequence in sequences], self._window_size)
        return self._tables
