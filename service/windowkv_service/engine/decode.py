"""The DECODE step: one token for every running sequence."""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch

from windowkv_service.engine.resources import Resources
from windowkv_service.engine.sequence import Sequence
from windowkv_service.engine.tables import BatchTables, BlockTables
from windowkv_service.model.sampler import SamplerBatch


class DecodeBatch:
    """Keeps the padded tables, and what sampling needs on the device, while the same sequences run on the same
    tables."""

    def __init__(self, resources: Resources) -> None:
        self._runner = resources.runner
        self._metrics = resources.metrics.requests
        self._model = resources.model
        self._sequences: list[Sequence] = []
        self._batched: list[BlockTables] = []
        self._tables: BatchTables | None = None
        self._sampler: SamplerBatch | None = None

    def step(self, sequences: Many[Sequence]) -> None:
        """Run each sequence's last token and accept the next."""
        tables, sampler = self._parts_of(sequences)
        device = self._model.device
        token_ids = torch.tensor([[sequence.last_token] for sequence in sequences], device=device)
        positions = torch.tensor([[sequence.position] for sequence in sequences], device=device)
        tail_lengths = [sequence.position - sequence.tables.tail_start for sequence in sequences]
        logits = self._runner.logits(token_ids, positions, tables.step(tail_lengths))
        for sequence, sampled in zip(sequences, sampler.sample(logits).read(), strict=True):
            before = sequence.last_token_time
            try:
                sequence.accept(sampled)
            except Exception as error:  # a tokenizer is somebody else's; what it trips over is one answer's
                sequence.fault = error
                continue
            self._metrics.token_after(sequence.last_token_time - before)

    def _parts_of(self, sequences: Many[Sequence]) -> tuple[BatchTables, SamplerBatch]:
        batched = [sequence.tables for sequence in sequences]
        if self._tables is None or self._batched != batched:  # one that chose windows anew has new tables
            self._batched = batched
            self._tables = BatchTables(batched, self._model.layout.window_size)
        if self._sampler is None or self._sequences != list(sequences):
            self._sequences = list(sequences)
            states = [sequence.sampler for sequence in sequences]
            self._sampler = SamplerBatch(states, self._model.vocab_size, self._model.device)
        return self._tables, self._sampler
