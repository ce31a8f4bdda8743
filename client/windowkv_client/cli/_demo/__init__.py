"""windowkv demo: a worker, a long document, questions and answers; then the same from Redis after a restart."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from windowkv_client._client import Client
from windowkv_client.cli._demo._document import DemoDocument, Question, read_document
from windowkv_client.cli._demo._interrupts import Interrupts
from windowkv_client.cli._demo._processes import StartFailed, find_redis_server, redis_server, worker
from windowkv_client.cli._demo._report import report
from windowkv_client.cli._demo._story import FirstRun, Reply, ask_all, cache_document, first_run
from windowkv_client.cli._serve import INSTALL
from windowkv_client.cli._terminal import Terminal


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
        with (
            Interrupts() as interrupts,
            tempfile.TemporaryDirectory(prefix="windowkv-demo-") as folder,
            ThreadPoolExecutor(1) as calls,
        ):
            _tell_story(document, Path(folder), interrupts, calls, terminal)
    except StartFailed as error:
        terminal.complaint(str(error))
        return 1
    return 0


def _tell_story(
    document: DemoDocument, folder: Path, interrupts: Interrupts, calls: Executor, terminal: Terminal
) -> None:
    """Calls are made on a thread of their own: no signal is raised there.

    One that is raised while gRPC starts a call leaves a channel that waits for good when it is closed. So the signal
    breaks only the wait for the thread, the client is closed behind it, and what was being called ends with that.
    """
    program = find_redis_server()
    if program is None:
        terminal.note("no redis-server found: the part after the restart is left out")
        with _worker(folder, None, interrupts, terminal) as client:
            first = calls.submit(_first_run, client, document, terminal, has_redis=False).result()
        report(first, None, terminal)
        return
    with redis_server(program, folder, interrupts) as redis_url:
        with _worker(folder, redis_url, interrupts, terminal) as client:
            first = calls.submit(_first_run, client, document, terminal, has_redis=True).result()
        terminal.note("the worker is stopped; a new one starts, which knows the document from Redis only")
        with _worker(folder, redis_url, interrupts, terminal) as client:
            again = calls.submit(ask_all, client, first.cache, document, _Aloud(terminal)).result()
    report(first, again, terminal)


@contextmanager
def _worker(
    folder: Path, redis_url: str | None, interrupts: Interrupts, terminal: Terminal
) -> Iterator[Client]:
    terminal.note("starting a worker with the built-in model …")
    with worker(folder, redis_url, interrupts) as address, Client(address, token="") as client:
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
