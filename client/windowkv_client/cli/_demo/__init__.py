"""windowkv demo: a worker, a long document, questions and answers; then the same from Redis after a restart."""

from __future__ import annotations

import argparse
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from windowkv_client._client import Client
from windowkv_client.cli._demo._document import DemoDocument, Question, read_document
from windowkv_client.cli._demo._processes import StartFailed, find_redis_server, redis_server, worker
from windowkv_client.cli._demo._story import FirstRun, Reply, ask_all, cache_document, first_run, is_restored
from windowkv_client.cli._serve import INSTALL
from windowkv_client.cli._terminal import Terminal, size


def add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: list[argparse.ArgumentParser]
) -> None:
    demo = commands.add_parser("demo", parents=parents, help="see it work: a long document, asked many times")
    demo.set_defaults(run=run)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    if find_spec("torch") is None:
        terminal.complaint(f"the demo runs a worker; install it with: {INSTALL}")
        return 2
    document = read_document()
    try:
        with _termination_as_interrupt(), tempfile.TemporaryDirectory(prefix="windowkv-demo-") as folder:
            _tell_story(document, Path(folder), terminal)
    except StartFailed as error:
        terminal.complaint(str(error))
        return 1
    return 0


def _tell_story(document: DemoDocument, folder: Path, terminal: Terminal) -> None:
    program = find_redis_server()
    if program is None:
        terminal.note("no redis-server found: the part after the restart is left out")
        with _worker(folder, None, terminal) as client:
            first = _first_run(client, document, terminal, has_redis=False)
        _report(document, first, None, terminal)
        return
    with redis_server(program, folder) as redis_url:
        with _worker(folder, redis_url, terminal) as client:
            first = _first_run(client, document, terminal, has_redis=True)
        terminal.note("the worker is stopped; a new one starts, which knows the document from Redis only")
        with _worker(folder, redis_url, terminal) as client:
            again = ask_all(client, first.cache, document, _Aloud(terminal))
    _report(document, first, again, terminal)


@contextmanager
def _worker(folder: Path, redis_url: str | None, terminal: Terminal) -> Iterator[Client]:
    terminal.note("starting a worker with the built-in model …")
    with worker(folder, redis_url) as address, Client(address, token="") as client:
        yield client


def _first_run(client: Client, document: DemoDocument, terminal: Terminal, *, has_redis: bool) -> FirstRun:
    with terminal.progress("prefilling") as on_progress:
        cache, prefill_s = cache_document(client, document, on_progress, has_redis=has_redis)
    terminal.note(f"{cache.token_count} tokens prefilled in {prefill_s:.1f} s")
    return first_run(client, document, cache, prefill_s, _Aloud(terminal))


class _Aloud:
    """Lets people see every answer as it comes."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def begin(self, question: Question) -> None:
        if not self._terminal.is_json:
            self._terminal.text(f"{question.text} ", end="")

    def hear(self, text: str) -> None:
        if not self._terminal.is_json:
            self._terminal.text(text, end="")

    def end(self, reply: Reply) -> None:
        if not self._terminal.is_json:
            self._terminal.text(f"   {'right' if reply.is_right else 'wrong'}")


def _report(
    document: DemoDocument, first: FirstRun, again: Sequence[Reply] | None, terminal: Terminal
) -> None:
    if terminal.is_json:
        terminal.result(_summary(document, first, again))
        return
    _tables(first, again, terminal)


def _summary(document: DemoDocument, first: FirstRun, again: Sequence[Reply] | None) -> dict[str, object]:
    cache = first.cache
    return {
        "questions": len(document.questions),
        "correct": _num_right(first.replies),
        "published_correct": _num_right(first.published),
        "document_tokens": cache.token_count,
        "kept_ratio": cache.kept_ratio,
        "kept_tokens": cache.kept_token_count,
        "full_bytes": cache.full_bytes,
        "stored_bytes": cache.stored_bytes,
        "cold_ttft_s": round(first.cold_s, 4),
        "warm_ttft_s": round(first.warm_s, 4),
        "restored_from_redis": again is not None and is_restored(cache, again[0]),
        "restored_correct": _num_right(again or ()),
        "answers": [_summary_of(reply) for reply in first.replies],
    }


def _summary_of(reply: Reply) -> dict[str, object]:
    tier = reply.usage.source_tier
    return {
        "question": reply.question.text,
        "answer": reply.text,
        "expected": reply.question.answer,
        "ttft_s": round(reply.first_token_s, 4),
        "tier": tier,
    }


def _tables(first: FirstRun, again: Sequence[Reply] | None, terminal: Terminal) -> None:
    cache, num_asked = first.cache, len(first.replies)
    columns = ["question", "answer", "", "as published", "", "#first token", "tier", "#read"]
    columns += ["after restart", "", "#first token", "tier"] if again else []
    rows = []
    for index, (reply, published) in enumerate(zip(first.replies, first.published, strict=True)):
        row = [reply.question.text, *_verdict(reply), *_verdict(published), *_timing(reply)]
        row.append(f"{reply.usage.kept_tokens} tokens, {size(reply.usage.device_bytes)}")
        rows.append(row + ([*_verdict(again[index]), *_timing(again[index])] if again else []))
    terminal.text("")
    terminal.table(columns, rows)
    facts = {
        "document": f"{cache.token_count} tokens, KV cache {size(cache.full_bytes)}",
        "kept on the device": f"{cache.kept_token_count} tokens, {size(cache.stored_bytes)} "
        f"({cache.stored_ratio:.3f} of the full cache; {cache.kept_ratio} asked for)",
        "right": f"{_num_right(first.replies)} of {num_asked}; "
        f"the choice made at prefill alone: {_num_right(first.published)} of {num_asked}",
        "first token": f"cold {first.cold_s:.2f} s, warm {first.warm_s * 1000:.0f} ms",
    }
    if again is not None:
        source = "from Redis, without prefilling" if is_restored(cache, again[0]) else "not from Redis"
        facts["after the restart"] = f"{_num_right(again)} of {num_asked} right, {source}"
    terminal.facts("windowkv demo", facts)


def _verdict(reply: Reply) -> tuple[str, str]:
    return reply.text, "right" if reply.is_right else "wrong"


def _timing(reply: Reply) -> tuple[str, str]:
    return f"{reply.first_token_s * 1000:.0f} ms", str(reply.usage.source_tier or "computed")


def _num_right(replies: Sequence[Reply]) -> int:
    return sum(reply.is_right for reply in replies)


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM and a closed terminal unwind the demo as Ctrl-C does, so that its processes are stopped too."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
