"""A server that says what a test tells it to, for what the real redis-server cannot be made to say."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator

_COMMAND = re.compile(rb"(?:^|\n)\*\d+\r\n")


class ScriptedServer:
    """Answers whatever it is sent with `answer`, once for every command; hangs up on the next num_hang_ups
    GETs."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.num_hang_ups = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def close(self) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while packet := connection.recv(1 << 16):
                if b"GET" in packet and self.num_hang_ups > 0:
                    self.num_hang_ups -= 1
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                connection.sendall(self.answer * len(_COMMAND.findall(packet)))


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[ScriptedServer]:
    server = ScriptedServer(answer)
    try:
        yield server
    finally:
        server.close()
