"""A worker as an operator starts it: `python -m windowkv_service` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

END_LIMIT_S = 30.0


class WorkerProcess:
    """target is where a client connects."""

    def __init__(self, log: Path, **flags: object) -> None:
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        command = [sys.executable, "-m", "windowkv_service", "--listen=127.0.0.1:0", "--device=cpu"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._log = log.open("w")
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said.startswith("listening on "), log.read_text()
        self.target = said.removeprefix("listening on ").strip()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit status; negative is the signal that ended it."""
        return self._process.wait(timeout=END_LIMIT_S)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


@contextmanager
def worker_process(log: Path, **flags: object) -> Iterator[WorkerProcess]:
    process = WorkerProcess(log, **flags)
    try:
        yield process
    finally:
        process.close()
