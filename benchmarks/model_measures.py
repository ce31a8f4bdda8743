"""What is measured of a model: decode steps, throughput, first tokens, restores and compression."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from model_restore import HostBlocks, VerifiedBlocks, has_checksums
from model_shapes import weight_bytes
from model_subject import Cached, Subject, Windows
from transformers import DynamicCache

from windowkv_service.model.attention import ATTENTION_NAME


class Clock(Protocol):
    """seconds: of one round, median; wall_seconds: once, the host's part included; idle_share: of the GPU, or None."""

    @property
    def device(self) -> torch.device: ...
    def seconds(self, work: Callable[[], object]) -> float: ...
    def wall_seconds(self, work: Callable[[], object]) -> float: ...
    def idle_share(self, work: Callable[[], object]) -> float | None: ...
    def copy_bandwidth(self) -> float: ...
    def product_rate(self, dtype: torch.dtype) -> float: ...


@dataclass(frozen=True)
class Result:
    """value and compared in seconds, tokens per second or a share; ratio is what the goal is about."""

    value: float | None
    compared: float | None
    ratio: float | None


def decode_one(subject: Subject, clock: Clock, bandwidth: float) -> Iterator[tuple[str, Result]]:
    """One sequence on a compressed document, against the bytes of weights and kept KV."""
    sizes = subject.sizes
    windows = subject.some_windows(sizes.document, sizes.kept_ratio)
    memory = subject.memory(subject.blocks_per_group(windows))
    step = subject.decoding(memory, [windows], sizes.document)
    seconds = clock.seconds(step)
    floor = (weight_bytes(subject.module) + _kept_bytes(subject, windows)) / bandwidth
    yield "step", Result(seconds, floor, floor / seconds)
    idle = clock.idle_share(step)
    yield "idle", Result(idle, None, idle)


def throughput(subject: Subject, clock: Clock) -> Iterator[tuple[str, Result]]:
    """A large batch on compressed documents, against as many full caches as fit into the same memory."""
    sizes = subject.sizes
    kept = _tokens_per_second(subject, clock, sizes.batch, sizes.kept_ratio)
    num_full = max(1, int(sizes.batch * sizes.kept_ratio))
    full = _tokens_per_second(subject, clock, num_full, 1.0)
    yield "throughput", Result(kept, full, kept / full)
    stock = _generate(subject, clock, num_full)
    yield "generate", Result(kept, stock, None if stock is None else kept / stock)


def first_token(subject: Subject, clock: Clock, num_tokens: int) -> Iterator[tuple[str, Result]]:
    """A document that nobody knows against one that is cached: resident, and with all blocks in host memory."""
    memory = subject.memory(subject.layout.num_windows(num_tokens))
    prompt, question = subject.prompt(num_tokens), subject.prompt(subject.sizes.question)
    done: list[Cached] = []
    parts: list[float] = []

    def cold() -> None:
        staged: list = []
        parts.append(clock.wall_seconds(lambda: staged.append(subject.prefill(memory, prompt))))
        staging, observed = staged[0]
        parts.append(
            clock.wall_seconds(lambda: done.append(subject.compress(memory, staging, observed, num_tokens)))
        )
        subject.ask(memory, done[-1], num_tokens, question)

    subject.prefill(
        memory, prompt[: 2 * subject.sizes.chunk]
    )  # compiles and loads what is used for the first time
    seconds = clock.wall_seconds(cold)
    cached, (prefill_s, compress_s) = done[-1], parts
    fetch = HostBlocks(subject, memory, cached.windows)
    for _ in range(2):
        subject.ask(memory, cached, num_tokens, question, fetch)
    resident = clock.wall_seconds(lambda: subject.ask(memory, cached, num_tokens, question))
    restored = clock.wall_seconds(lambda: subject.ask(memory, cached, num_tokens, question, fetch))
    yield "warm", Result(restored, seconds, seconds / restored)
    yield "resident", Result(resident, seconds, seconds / resident)
    yield "compression", Result(compress_s, prefill_s, compress_s / prefill_s)


def prefill(subject: Subject, clock: Clock) -> Iterator[tuple[str, Result]]:
    """A document, chunk by chunk into staging, against transformers' own attention and cache on the same chunks; and
    what attention alone takes for the last chunk, over all before it, against its FLOPs."""
    sizes, memory = subject.sizes, subject.memory(1)
    prompt = subject.prompt(sizes.document)
    subject.prefill(memory, prompt[: 2 * sizes.chunk])
    ours = clock.wall_seconds(lambda: subject.prefill(memory, prompt))
    with _stock_attention(subject):
        _prefill_stock(subject, prompt[: 2 * sizes.chunk])
        theirs = clock.wall_seconds(lambda: _prefill_stock(subject, prompt))
    yield "prefill", Result(sizes.document / ours, sizes.document / theirs, theirs / ours)
    release(subject.device)
    attend, flops = subject.last_chunk(sizes.document)
    seconds = clock.seconds(attend)
    floor = flops / clock.product_rate(sizes.dtype)
    yield "attention", Result(seconds, floor, floor / seconds)


def _prefill_stock(subject: Subject, prompt: Sequence[int]) -> None:
    cache, decoder = DynamicCache(), subject.module.get_decoder()  # type: ignore[operator]
    with torch.inference_mode():
        for first in range(0, len(prompt), subject.sizes.chunk):
            ids = torch.tensor([prompt[first : first + subject.sizes.chunk]], device=subject.device)
            decoder(input_ids=ids, past_key_values=cache, use_cache=True)


@contextmanager
def _stock_attention(subject: Subject) -> Iterator[None]:
    """transformers' own attention while it lasts."""
    subject.module.set_attn_implementation("sdpa")  # type: ignore[operator]
    try:
        yield
    finally:
        subject.module.set_attn_implementation(ATTENTION_NAME)  # type: ignore[operator]
        release(subject.device)


def restore(subject: Subject, clock: Clock) -> Iterator[tuple[str, Result]]:
    """A compressed document's blocks from host memory to the device, against one large copy of as many bytes: by
    themselves, and out of the tier that verifies each."""
    windows = subject.some_windows(subject.sizes.document, subject.sizes.kept_ratio)
    memory = subject.memory(subject.blocks_per_group(windows))
    size = _kept_bytes(subject, windows)
    source = torch.ones(size, dtype=torch.uint8, pin_memory=clock.device.type == "cuda")
    target = torch.empty(size, dtype=torch.uint8, device=clock.device)
    plain = _least(clock, lambda: target.copy_(source, non_blocking=True))
    seconds = _least(clock, HostBlocks(subject, memory, windows).all)
    yield "restore", Result(seconds, plain, plain / seconds)
    verified = _least(clock, VerifiedBlocks(subject, memory, windows).all) if has_checksums() else None
    yield "verified", Result(verified, plain, None if verified is None else plain / verified)


def _least(clock: Clock, work: Callable[[], object]) -> float:
    """Of three times, once it has been done before."""
    work()
    return min(clock.wall_seconds(work) for _ in range(3))


def _tokens_per_second(subject: Subject, clock: Clock, batch: int, kept_ratio: float) -> float:
    sizes = subject.sizes
    documents = [subject.some_windows(sizes.document, kept_ratio) for _ in range(batch)]
    memory = subject.memory(sum(map(subject.blocks_per_group, documents)))
    return batch / clock.seconds(subject.decoding(memory, documents, sizes.document))


def _generate(subject: Subject, clock: Clock, batch: int) -> float | None:
    """transformers' own: static cache, not compiled, which would take minutes. None where it runs out of memory."""
    sizes = subject.sizes
    ids = torch.tensor([subject.prompt(sizes.document) for _ in range(batch)], device=subject.device)

    def run(num_new: int) -> None:
        subject.module.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=num_new,
            min_new_tokens=num_new,
            do_sample=False,
            cache_implementation="static",
            prefill_chunk_size=sizes.chunk,
            disable_compile=True,
            pad_token_id=0,
            eos_token_id=None,
        )

    try:
        with _stock_attention(subject), torch.inference_mode():
            one, many = (clock.wall_seconds(lambda n=n: run(n)) for n in (1, 1 + sizes.steps))
    except torch.OutOfMemoryError:
        return None
    return batch * sizes.steps / max(many - one, 1e-9)


def _kept_bytes(subject: Subject, windows: Windows) -> int:
    layout = subject.layout
    return sum(
        len(chosen) * layout.block_bytes(group) for group, chosen in zip(layout.groups, windows, strict=True)
    )


def release(device: torch.device) -> None:
    """Give back what a measurement took."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


Measurement = Callable[[], Iterator[tuple[str, Result]]]


def measurements(subject: Subject, clock: Clock, bandwidth: float) -> Sequence[tuple[str, Measurement]]:
    """(prefix of the names of its results, the measurement), in the order of the table."""
    sizes = subject.sizes
    work: list[tuple[str, Measurement]] = [
        ("", lambda: decode_one(subject, clock, bandwidth)),
        ("", lambda: throughput(subject, clock)),
        ("", lambda: prefill(subject, clock)),
        ("", lambda: restore(subject, clock)),
        ("document ", lambda: first_token(subject, clock, sizes.document)),
    ]
    if subject.shape.long_document:
        work.append(("long document ", lambda: first_token(subject, clock, sizes.long_document)))
    return work
