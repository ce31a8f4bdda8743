"""TLS from files that may be replaced while the server runs, as certificate managers do."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc


@dataclass(frozen=True)
class TlsFiles:
    """PEM files. With client_ca, clients must show a certificate signed by it."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class CertificateReloader:
    """Reads the files again when one of them has changed. gRPC asks before each handshake, on its threads."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._read_at = self._modified()

    def load(self) -> grpc.ServerCertificateConfiguration:
        """OSError, which ssl.SSLError is too, when a file is missing or certificate and key do not match."""
        files = self._files
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(files.cert, files.key)
        return grpc.ssl_server_certificate_configuration(
            [(files.key.read_bytes(), files.cert.read_bytes())],
            root_certificates=None if files.client_ca is None else files.client_ca.read_bytes(),
        )

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new certificates, or None to go on with the old: nothing changed, or a change is half done."""
        with suppress(OSError):
            modified = self._modified()
            if modified != self._read_at:
                configuration = self.load()
                self._read_at = modified
                return configuration
        return None

    def _modified(self) -> tuple[int, ...]:
        paths = (self._files.cert, self._files.key, self._files.client_ca)
        return tuple(path.stat().st_mtime_ns for path in paths if path is not None)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    reloader = CertificateReloader(files)
    # The stubs forget that None is an answer: no change.
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", reloader.changed)
    return grpc.dynamic_ssl_server_credentials(
        reloader.load(), fetch, require_client_authentication=files.client_ca is not None
    )
