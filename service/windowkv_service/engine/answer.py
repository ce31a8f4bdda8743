"""DECODE: a cached prompt and a question go in, an answer streams out. Of the caller nothing is remembered.

A question on a compressed cache whose windows are all kept below runs twice. The first pass only listens: at the leader
layers its queries score every window against the leader keys. The chosen windows become this question's block table,
what is missing is fetched beside the engine, and the second pass answers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from windowkv_service.domain.requests import GenerateRequest, QuestionSelection
from windowkv_service.domain.results import GenerateChunk, Usage
from windowkv_service.engine.choosing import Choosing
from windowkv_service.engine.ground import ground_on_cache, ground_on_prompt
from windowkv_service.engine.question import Question
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.sequence import Decoding, Emit, Sequence
from windowkv_service.engine.task import TURN, Until, Walk
from windowkv_service.engine.text import AnswerText
from windowkv_service.errors import BadOption
from windowkv_service.model.sampler import SamplerState, sample


@dataclass
class Stopwatch:
    submitted: float = field(default_factory=time.monotonic)
    admitted: float = 0.0

    @property
    def queue_s(self) -> float:
        return self.admitted - self.submitted


def answer(
    resources: Resources, request: GenerateRequest, fresh_seed: int, emit: Emit
) -> Walk[GenerateChunk]:
    """The whole answer; returns its last chunk, which carries the finish reason and the usage."""
    _check(resources, request)
    watch = Stopwatch()
    while resources.num_answering >= resources.limits.max_running:
        yield Until(lambda: resources.num_answering < resources.limits.max_running)
    resources.num_answering += 1
    watch.admitted = time.monotonic()
    try:
        return (yield from _answer(resources, request, emit, watch, fresh_seed))
    finally:
        resources.num_answering -= 1


def _check(resources: Resources, request: GenerateRequest) -> None:
    """Refuse what cannot be answered, before anything is spent on it."""
    resources.check_tokens(request.token_ids, may_be_empty=request.cache is not None)
    resources.check_length(len(request.token_ids) + 1)
    resources.check_vocabulary(request.sampling.stop_token_ids, field="sampling.stop_token_ids")
    if request.cache is None and request.selection is QuestionSelection.QUESTION:
        raise BadOption("without a cache there is nothing to choose from", field="selection.mode")


def _answer(
    resources: Resources, request: GenerateRequest, emit: Emit, watch: Stopwatch, fresh_seed: int
) -> Walk[GenerateChunk]:
    on_cache = request.cache is not None
    ground = yield from (ground_on_cache if on_cache else ground_on_prompt)(resources, request)
    try:
        question = Question(ground, request.token_ids if on_cache else request.token_ids[-1:])
        longest = min(request.sampling.max_tokens, resources.model.max_tokens - question.num_prompt)
        yield from question.take_tail(resources, longest)
        try:
            choosing = Choosing(resources, request, question)
            yield from choosing.first()
            sequence = yield from _speak(resources, request, question, choosing, emit, longest, fresh_seed)
        finally:
            question.release_tail(resources)
        usage = _usage(question, sequence, watch)
    finally:
        ground.release(resources)
    resources.metrics.requests.answered(usage)
    index, rest = sequence.num_generated, sequence.rest_of_text()
    return GenerateChunk(index, rest, (), finish_reason=sequence.finish_reason, usage=usage)


def _speak(
    resources: Resources,
    request: GenerateRequest,
    question: Question,
    choosing: Choosing,
    emit: Emit,
    longest: int,
    fresh_seed: int,
) -> Walk[Sequence]:
    """The answering pass over the chosen windows, then one token per step with the batch, in turns with new choices."""
    tables = question.tables(resources)
    eos_ids = resources.model.eos_ids
    sampler = SamplerState.make(request.sampling, question.prompt_ids, eos_ids, fresh_seed=fresh_seed)
    text = AnswerText(resources.model.tokenizer.stream(), request.sampling.stop)
    sequence = Sequence(tables, sampler, text, emit, num_prompt=question.num_prompt, max_tokens=longest)
    sequence.pause_at = choosing.due(0)
    for first, ids, positions in question.chunks(resources):
        yield TURN
        logits = resources.passes.logits(tables, first, ids, positions)
    sequence.accept(sample(logits, [sampler])[0])
    while sequence.finish_reason is None:
        if sequence.is_due:
            yield from choosing.again(sequence)
            sequence.pause_at = choosing.due(sequence.num_generated)
        yield Decoding(sequence)
        if sequence.fault is not None:
            raise sequence.fault
    return sequence


def _usage(question: Question, sequence: Sequence, watch: Stopwatch) -> Usage:
    ground, report = question.ground, question.ground.report
    assert sequence.first_token_time is not None
    is_cached = ground.entry is not None or ground.num_cached > 0
    return Usage(
        prompt_tokens=question.num_prompt,
        cached_tokens=ground.num_cached,
        kept_tokens=ground.prompt.count_kept(ground.claim.windows),
        generated_tokens=sequence.num_generated,
        source_tier=report.farthest if is_cached else None,
        miss_reason=report.miss_reason,
        diverged_at=ground.diverged_at,
        fidelity=ground.fidelity,
        time_to_first_token_s=sequence.first_token_time - watch.submitted,
        queue_s=watch.queue_s,
        blocks_fetched=report.num_blocks,
        bytes_fetched=report.num_bytes,
        fetch_s=report.seconds,
        device_bytes=ground.device_bytes,
        selections=ground.num_choices,
        tail_bytes=question.tail_bytes(sequence.position),
        is_recomputed=report.is_recomputed,
    )
