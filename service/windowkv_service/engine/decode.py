"""The DECODE step: one token for every running sequence."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

from windowkv_service.engine.resources import Resources
from windowkv_service.engine.sequence import Sequence
from windowkv_service.engine.tables import BlockTables, stack_up
from windowkv_service.kv.sending import on_device
from windowkv_service.model.decode_steps import DecodeSteps
from windowkv_service.model.sampler import Drawn, SamplerBatch


@dataclass(frozen=True)
class _Stay:
    """A sequence's time in the batch: over when it leaves to choose windows again, whatever it chooses."""

    sequence: Sequence
    tables: BlockTables
    pause_at: int | None

    @classmethod
    def of(cls, sequence: Sequence) -> _Stay:
        return cls(sequence, sequence.tables, sequence.pause_at)


@dataclass(frozen=True)
class _UnderWay:
    """A step whose tokens nobody has read yet."""

    stays: list[_Stay]
    drawn: Drawn


class DecodeBatch:
    """While the same sequences run on the same tables, all that a step needs stays on the device, the tokens too.

    So a step can be launched before the tokens of the one before it are read: the device goes on while the host looks
    for ends and sends text. Who ended is noticed a step late; the one token too many is never accepted. Its KV goes to
    the tail's last slot, or to one that is written again; whoever is given the tail's blocks next writes after it.
    """

    def __init__(self, resources: Resources) -> None:
        self._metrics = resources.metrics.requests
        self._model = resources.model
        self._runs_ahead = resources.runs_ahead
        self._min_shared = resources.min_shared
        self._steps = DecodeSteps.on(
            resources.runner, resources.model.layout.window_size, resources.model.device
        )
        self._stays: list[_Stay] = []
        self._sampler: SamplerBatch | None = None
        self._under_way: _UnderWay | None = None

    def step(self, sequences: Many[Sequence]) -> None:
        """Go on by one token each: run it, or, where steps run ahead, run the next and accept this one."""
        stays = [_Stay.of(sequence) for sequence in sequences]
        before, self._under_way = self._under_way, None
        sampler = self._sampler
        if sampler is None or self._stays != stays:
            if before is not None and any(stay in stays for stay in before.stays):
                self._accept(before, stays)  # what they say next depends on it
                return
            before, sampler = None, self._begin(stays)
        drawn = sampler.sample(self._steps.logits())
        self._steps.feed(drawn.token_ids)
        launched = _UnderWay(stays, drawn)
        if self._runs_ahead:
            self._under_way = launched
        else:
            before = launched
        if before is not None:
            self._accept(before, stays)

    def _begin(self, stays: list[_Stay]) -> SamplerBatch:
        """Another batch, from what each has said so far."""
        self._stays = stays
        sequences, tables = [stay.sequence for stay in stays], [stay.tables for stay in stays]
        device = self._model.device
        token_ids = on_device([sequence.last_token for sequence in sequences], device)
        positions = on_device([sequence.position for sequence in sequences], device)
        tail_starts = on_device([each.tail_start for each in tables], device)
        self._steps.begin(stack_up(tables, self._min_shared), token_ids, positions, positions - tail_starts)
        states = [sequence.sampler for sequence in sequences]
        self._sampler = SamplerBatch(states, self._model.vocab_size, device)
        return self._sampler

    def _accept(self, step: _UnderWay, running: list[_Stay]) -> None:
        """Read a step's tokens and give each to its sequence, if that has stayed."""
        still_there = set(running)
        for stay, sampled in zip(step.stays, step.drawn.read(), strict=True):
            if stay not in still_there:
                continue
            sequence = stay.sequence
            before = sequence.last_token_time
            try:
                sequence.accept(sampled)
            except Exception as error:  # a tokenizer is somebody else's; what it trips over is one answer's
                sequence.fault = error
                continue
            self._metrics.token_after(sequence.last_token_time - before)
