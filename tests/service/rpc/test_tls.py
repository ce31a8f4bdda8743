"""TLS from files: encrypted, mutual where asked, and renewed without a restart."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from byte_tokenizer import ByteTokenizer
from memory_engine import MemoryEngine

from windowkv.v1 import cache_pb2, cache_pb2_grpc
from windowkv_service.rpc.server import Server, ServerSettings
from windowkv_service.rpc.tls import TlsFiles

LIST = cache_pb2.ListCachesRequest()


def write_certificate(folder: Path, authority: trustme.CA) -> TlsFiles:
    certificate = authority.issue_cert("localhost")
    files = TlsFiles(folder / "tls.crt", folder / "tls.key")
    certificate.cert_chain_pems[0].write_to_path(files.cert)
    certificate.private_key_pem.write_to_path(files.key)
    return files


@asynccontextmanager
async def serve_tls(files: TlsFiles) -> AsyncIterator[str]:
    server = Server(MemoryEngine(), ByteTokenizer(), ServerSettings(listen="localhost:0", tls=files))
    port = await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(0)


async def list_caches(
    target: str, authority: trustme.CA, client: trustme.LeafCert | None = None
) -> grpc.StatusCode:
    """The status of a call over a connection of its own to a server that `authority` vouches for."""
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        client.private_key_pem.bytes() if client else None,
        client.cert_chain_pems[0].bytes() if client else None,
    )
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        return await cache_pb2_grpc.CacheServiceStub(channel).ListCaches(LIST).code()


async def test_a_client_that_trusts_the_authority_is_served(tmp_path: Path) -> None:
    authority = trustme.CA()
    async with serve_tls(write_certificate(tmp_path, authority)) as target:
        assert await list_caches(target, authority) is grpc.StatusCode.OK
        assert await list_caches(target, trustme.CA()) is grpc.StatusCode.UNAVAILABLE


async def test_with_a_client_authority_a_client_needs_a_certificate(tmp_path: Path) -> None:
    authority, clients = trustme.CA(), trustme.CA()
    files = write_certificate(tmp_path, authority)
    clients.cert_pem.write_to_path(tmp_path / "ca.crt")
    async with serve_tls(TlsFiles(files.cert, files.key, tmp_path / "ca.crt")) as target:
        assert await list_caches(target, authority) is grpc.StatusCode.UNAVAILABLE
        client = clients.issue_cert("client")
        assert await list_caches(target, authority, client) is grpc.StatusCode.OK


async def test_a_renewed_certificate_serves_without_a_restart(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    async with serve_tls(write_certificate(tmp_path, old)) as target:
        assert await list_caches(target, old) is grpc.StatusCode.OK
        write_certificate(tmp_path, new)
        assert await list_caches(target, new) is grpc.StatusCode.OK
        assert await list_caches(target, old) is grpc.StatusCode.UNAVAILABLE


async def test_a_half_written_renewal_leaves_the_old_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    files = write_certificate(tmp_path, authority)
    async with serve_tls(files) as target:
        files.key.write_bytes(b"not a key yet")
        assert await list_caches(target, authority) is grpc.StatusCode.OK
        files.key.unlink()
        assert await list_caches(target, authority) is grpc.StatusCode.OK


async def test_a_certificate_that_does_not_fit_its_key_stops_the_start(tmp_path: Path) -> None:
    files = write_certificate(tmp_path, trustme.CA())
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(files.key)
    server = Server(MemoryEngine(), ByteTokenizer(), ServerSettings(listen="localhost:0", tls=files))
    with pytest.raises(ssl.SSLError):
        await server.start()
