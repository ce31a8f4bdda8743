"""The engine's changing state for one answer: what it has said, what it will be asked next, when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable

from windowkv_service.domain.results import FinishReason, GenerateChunk
from windowkv_service.engine.listener import Listener
from windowkv_service.engine.tables import BlockTables
from windowkv_service.engine.text import AnswerText
from windowkv_service.model.sampler import Sampled, SamplerState

Emit = Callable[[GenerateChunk], None]


class Sequence:
    """num_prompt: logical length of everything before the answer; max_tokens: what the request and the model allow."""

    def __init__(
        self,
        tables: BlockTables,
        sampler: SamplerState,
        text: AnswerText,
        emit: Emit,
        *,
        num_prompt: int,
        max_tokens: int,
    ) -> None:
        self.tables = tables
        self.sampler = sampler
        self._text = text
        self._emit = emit
        self._num_prompt = num_prompt
        self._max_tokens = max_tokens
        self.pause_at: int | None = (
            None  # after so many generated tokens it leaves the batch to choose windows again
        )
        self.finish_reason: FinishReason | None = None
        self.fault: Exception | None = None  # what broke this answer; its neighbours go on
        self.first_token_time: float | None = None
        self.last_token_time = 0.0

    @property
    def num_generated(self) -> int:
        return len(self.sampler.generated_ids)

    @property
    def is_due(self) -> bool:
        """It is time to choose windows again."""
        return self.pause_at is not None and self.num_generated >= self.pause_at

    @property
    def last_token(self) -> int:
        return self.sampler.generated_ids[-1]

    @property
    def position(self) -> int:
        """The logical position of the last generated token, which the next step runs."""
        return self._num_prompt + self.num_generated - 1

    def accept(self, sampled: Sampled) -> None:
        """Take one sampled token: say its text, and find out whether it is the last."""
        index = self.num_generated
        self.sampler.generated_ids.append(sampled.token_id)
        self._keep_time()
        is_end = self._is_end(sampled.token_id)
        may_stop = self.num_generated > self.sampler.sampling.min_tokens
        text = "" if is_end else self._text.push(sampled.token_id, may_stop=may_stop)
        if is_end or self._text.is_stopped:
            self.finish_reason = FinishReason.STOP
        elif self.num_generated == self._max_tokens:
            self.finish_reason = FinishReason.LENGTH
        logprobs = () if sampled.logprob is None else (sampled.logprob,)
        self._emit(GenerateChunk(index, text, (sampled.token_id,), logprobs))

    def rest_of_text(self) -> str:
        """What was held back as the possible beginning of a stop string."""
        return "" if self._text.is_stopped else self._text.finish()

    def _is_end(self, token_id: int) -> bool:
        sampling = self.sampler.sampling
        is_eos = token_id in self.sampler.eos_ids and not sampling.ignore_eos
        return is_eos or token_id in sampling.stop_token_ids

    def _keep_time(self) -> None:
        self.last_token_time = time.monotonic()
        if self.first_token_time is None:
            self.first_token_time = self.last_token_time


class Decoding:
    """The wait of a walk whose sequence decodes with the batch; over when the sequence has finished or is to pause.

    listener: instead of going on, the sequence's last token runs only to be heard; over as soon as it has been.
    """

    def __init__(self, sequence: Sequence, listener: Listener | None = None) -> None:
        self.sequence = sequence
        self.listener = listener

    def is_over(self) -> bool:
        sequence = self.sequence
        return sequence.finish_reason is not None or sequence.fault is not None or sequence.is_due
