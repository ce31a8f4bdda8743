"""The DECODE step: one token for every running sequence."""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch

from windowkv_service.engine.resources import Resources
from windowkv_service.engine.sequence import Sequence
from windowkv_service.engine.tables import BlockTables, stack_up
from windowkv_service.model.decode_steps import DecodeSteps
from windowkv_service.model.sampler import SamplerBatch


class DecodeBatch:
    """While the same sequences run on the same tables, all that a step needs stays on the device, the tokens too."""

    def __init__(self, resources: Resources) -> None:
        self._metrics = resources.metrics.requests
        self._model = resources.model
        self._steps = DecodeSteps.on(
            resources.runner, resources.model.layout.window_size, resources.model.device
        )
        self._sequences: list[Sequence] = []
        self._tables: list[BlockTables] = []
        self._sampler: SamplerBatch | None = None

    def step(self, sequences: Many[Sequence]) -> None:
        """Run each sequence's last token and accept the next."""
        sampler = self._begin(sequences)
        drawn = sampler.sample(self._steps.logits())
        self._steps.feed(drawn.token_ids)
        for sequence, sampled in zip(sequences, drawn.read(), strict=True):
            before = sequence.last_token_time
            try:
                sequence.accept(sampled)
            except Exception as error:  # a tokenizer is somebody else's; what it trips over is one answer's
                sequence.fault = error
                continue
            self._metrics.token_after(sequence.last_token_time - before)

    def _begin(self, sequences: Many[Sequence]) -> SamplerBatch:
        """Go on with the batch as it is, or make it anew: a sequence has come or gone, or has chosen windows again."""
        tables = [sequence.tables for sequence in sequences]
        if self._sampler is None or self._sequences != list(sequences) or self._tables != tables:
            self._sequences, self._tables = list(sequences), tables
            device = self._model.device
            token_ids = torch.tensor([sequence.last_token for sequence in sequences], device=device)
            positions = torch.tensor([sequence.position for sequence in sequences], device=device)
            tail_starts = torch.tensor([each.tail_start for each in tables], device=device)
            self._steps.begin(stack_up(tables), token_ids, positions, positions - tail_starts)
            states = [sequence.sampler for sequence in sequences]
            self._sampler = SamplerBatch(states, self._model.vocab_size, device)
        return self._sampler
