"""Logits and sampling parameters → token ids, for a whole batch at once, on the device that has the logits.

What a sequence draws follows from its logits, its seed and how many tokens it has: who shares its batch changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from windowkv_service.domain.requests import Sampling
from windowkv_service.domain.results import TokenLogprob
from windowkv_service.kv.sending import on_device
from windowkv_service.model.draws import Draws, is_greedy
from windowkv_service.model.penalties import LateEnds, Penalties


@dataclass
class SamplerState:
    """One sequence's chance and memory, on the host. prompt_ids: what the repetition penalty looks for, each token
    once; empty where there is no such penalty."""

    sampling: Sampling
    seed: int
    prompt_ids: Tensor
    eos_ids: frozenset[int]
    generated_ids: list[int] = field(default_factory=list)

    @classmethod
    def make(
        cls, sampling: Sampling, prompt_ids: Sequence[int], eos_ids: frozenset[int], *, fresh_seed: int
    ) -> SamplerState:
        """fresh_seed is used when the request names none."""
        counted = sorted(set(prompt_ids)) if sampling.repetition_penalty != 1.0 else ()
        seed = fresh_seed if sampling.seed is None else sampling.seed
        return cls(sampling, seed, torch.tensor(counted, dtype=torch.long), eos_ids)

    @property
    def has_penalties(self) -> bool:
        sampling = self.sampling
        return bool(
            sampling.repetition_penalty != 1.0 or sampling.presence_penalty or sampling.frequency_penalty
        )

    @property
    def may_end(self) -> bool:
        return len(self.generated_ids) >= self.sampling.min_tokens

    @property
    def end_ids(self) -> set[int]:
        """The tokens that would end the answer."""
        return {*self.sampling.stop_token_ids, *(() if self.sampling.ignore_eos else self.eos_ids)}


@dataclass(frozen=True)
class Sampled:
    token_id: int
    logprob: TokenLogprob | None


@dataclass(frozen=True)
class Logprobs:
    """Of the model's own distribution, before penalties, for the rows that asked. asked: row of the batch → how many of
    the likeliest; chosen [rows]; top_values and top_ids [rows, the most that one asked for]."""

    asked: Mapping[int, int]
    chosen: Tensor
    top_values: Tensor
    top_ids: Tensor

    def send(self) -> Logprobs:
        """The same on the host, once it has arrived there."""
        numbers = (self.chosen, self.top_values, self.top_ids)
        return Logprobs(self.asked, *(each.to("cpu", non_blocking=True) for each in numbers))

    def read(self, token_ids: Sequence[int]) -> dict[int, TokenLogprob]:
        """Row of the batch → what is told of its token."""
        columns = self.chosen.tolist(), self.top_ids.tolist(), self.top_values.tolist()
        return {
            row: TokenLogprob(token_ids[row], chosen, tuple(zip(ids[:count], values[:count], strict=True)))
            for (row, count), chosen, ids, values in zip(self.asked.items(), *columns, strict=True)
        }


@dataclass(frozen=True)
class Drawn:
    """One step's tokens: token_ids [B] on the device, and on their way to the host, with the logprobs of the rows that
    asked. That is all that leaves the device."""

    token_ids: Tensor
    _arriving_ids: Tensor
    _arriving_logprobs: Logprobs | None
    _arrived: torch.cuda.Event | None

    @classmethod
    def send(cls, token_ids: Tensor, logprobs: Logprobs | None) -> Drawn:
        """The copies are queued now: steps that are launched before they are read do not come first."""
        arriving_ids = token_ids.to("cpu", non_blocking=True)
        arriving_logprobs = None if logprobs is None else logprobs.send()
        if not token_ids.is_cuda:
            return cls(token_ids, arriving_ids, arriving_logprobs, None)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(torch.cuda.current_stream(token_ids.device))
        return cls(token_ids, arriving_ids, arriving_logprobs, arrived)

    def read(self) -> list[Sampled]:
        """Waits for this step, and for none after it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        token_ids = self._arriving_ids.tolist()
        told = {} if self._arriving_logprobs is None else self._arriving_logprobs.read(token_ids)
        return [Sampled(token_id, told.get(row)) for row, token_id in enumerate(token_ids)]


class SamplerBatch:
    """The same sequences step after step: made when the batch changes, from what each has said by then."""

    def __init__(self, states: Sequence[SamplerState], vocab_size: int, device: torch.device) -> None:
        self._steps = on_device([len(state.generated_ids) for state in states], device)
        self._penalties = _penalties(states, vocab_size, device)
        self._late_ends = _late_ends(states, vocab_size, device)
        self._draws = _draws(states, device)
        self._asked = {
            row: state.sampling.logprobs
            for row, state in enumerate(states)
            if state.sampling.logprobs is not None
        }
        self._asking = on_device(list(self._asked), device)

    def sample(self, logits: Tensor) -> Drawn:
        """logits [B, vocab_size] → each row's next token; nothing waits for the host."""
        raw = logits
        if self._penalties or self._late_ends or self._draws:
            logits = logits.float()
        if self._penalties:
            logits = self._penalties.apply(logits)
        if self._late_ends:
            logits = self._late_ends.apply(logits, self._steps)
        token_ids = logits.argmax(-1)
        if self._draws:
            token_ids = self._draws.draw_into(token_ids, logits, self._steps)
        if self._penalties:
            self._penalties.count(token_ids)
        self._steps += 1
        return Drawn.send(token_ids, self._tell(raw, token_ids) if self._asked else None)

    def _tell(self, logits: Tensor, token_ids: Tensor) -> Logprobs:
        logprobs = logits[self._asking].float().log_softmax(-1)
        chosen = logprobs.gather(1, token_ids[self._asking, None])[:, 0]
        most = min(max(self._asked.values()), logits.shape[-1])
        return Logprobs(self._asked, chosen, *logprobs.topk(most))


def sample(logits: Tensor, states: Sequence[SamplerState]) -> list[Sampled]:
    """One step of a batch that is not kept: logits [B, vocab_size], one row per state."""
    return SamplerBatch(states, logits.shape[-1], logits.device).sample(logits).read()


def _rows(states: Sequence[SamplerState], is_one: Callable[[SamplerState], bool]) -> list[int]:
    return [row for row, state in enumerate(states) if is_one(state)]


def _penalties(states: Sequence[SamplerState], vocab_size: int, device: torch.device) -> Penalties | None:
    rows = _rows(states, lambda state: state.has_penalties)
    if not rows:
        return None
    some = [states[row] for row in rows]
    factors = [
        (s.sampling.repetition_penalty, s.sampling.presence_penalty, s.sampling.frequency_penalty)
        for s in some
    ]
    prompts, answers = [s.prompt_ids for s in some], [s.generated_ids for s in some]
    return Penalties(rows, prompts, answers, factors, vocab_size, device)


def _late_ends(states: Sequence[SamplerState], vocab_size: int, device: torch.device) -> LateEnds | None:
    rows = _rows(states, lambda state: not state.may_end and bool(state.end_ids))
    if not rows:
        return None
    ends = [states[row].end_ids for row in rows]
    return LateEnds(rows, ends, [states[row].sampling.min_tokens for row in rows], vocab_size, device)


def _draws(states: Sequence[SamplerState], device: torch.device) -> Draws | None:
    rows = _rows(states, lambda state: not is_greedy(state.sampling))
    if not rows:
        return None
    return Draws(rows, [states[row].sampling for row in rows], [states[row].seed for row in rows], device)
