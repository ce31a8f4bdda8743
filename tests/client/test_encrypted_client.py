"""Clients over TLS: trust, distrust, mutual, and a token on top, against the service's own server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from byte_tokenizer import ByteTokenizer
from memory_engine import MemoryEngine

from windowkv_client import AsyncClient, Client, RetryPolicy, Tls, Unauthenticated, Unavailable
from windowkv_client.cli import main
from windowkv_service.rpc.server import Server, ServerSettings
from windowkv_service.rpc.tls import TlsFiles

ONCE = RetryPolicy(max_attempts=1)
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def serving(
    folder: Path, authority: trustme.CA, *, is_mutual: bool = False, tokens: dict[str, str] | None = None
) -> AsyncIterator[str]:
    certificate = authority.issue_cert("localhost")
    files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt" if is_mutual else None)
    certificate.cert_chain_pems[0].write_to_path(files.cert)
    certificate.private_key_pem.write_to_path(files.key)
    authority.cert_pem.write_to_path(folder / "ca.crt")
    settings = ServerSettings(listen="localhost:0", tls=files, tokens=tokens or {})
    server = Server(MemoryEngine(), ByteTokenizer(), settings)
    port = await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(0)


async def model_name(target: str, tls: Tls | bool, token: str = "") -> str:
    async with AsyncClient(target, tls=tls, token=token, retry=ONCE, options=OWN_CONNECTION) as client:
        return (await client.models.get(timeout=10)).name


def trusting(authority: trustme.CA, own: trustme.LeafCert | None = None) -> Tls:
    key = own.private_key_pem.bytes() if own else None
    return Tls(authority.cert_pem.bytes(), key, own.cert_chain_pems[0].bytes() if own else None)


async def test_a_trusted_server_is_spoken_to(tmp_path: Path, authority: trustme.CA) -> None:
    async with serving(tmp_path, authority) as target:
        assert await model_name(target, trusting(authority)) == "tiny"


async def test_both_clients_speak_to_it(tmp_path: Path, authority: trustme.CA) -> None:
    def ask(target: str) -> str:
        with Client(target, tls=trusting(authority), token="") as client:
            return client.models.get().name

    async with serving(tmp_path, authority) as target:
        assert await asyncio.to_thread(ask, target) == "tiny"


@pytest.mark.parametrize("tls", [True, False], ids=["the system's trust", "no encryption"])
async def test_a_server_that_is_not_trusted_is_not(tmp_path: Path, authority: trustme.CA, tls: bool) -> None:
    async with serving(tmp_path, authority) as target:
        with pytest.raises(Unavailable):
            await model_name(target, tls)


async def test_mutual_tls_asks_for_the_clients_certificate(tmp_path: Path, authority: trustme.CA) -> None:
    own = authority.issue_cert("client")
    async with serving(tmp_path, authority, is_mutual=True) as target:
        assert await model_name(target, trusting(authority, own)) == "tiny"
        with pytest.raises(Unavailable):
            await model_name(target, trusting(authority))


async def test_a_token_travels_over_it(tmp_path: Path, authority: trustme.CA) -> None:
    async with serving(tmp_path, authority, tokens={"secret": "tenant"}) as target:
        assert await model_name(target, trusting(authority), token="secret") == "tiny"
        with pytest.raises(Unauthenticated):
            await model_name(target, trusting(authority), token="guess")


async def test_the_command_line_takes_files(
    tmp_path: Path, authority: trustme.CA, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(tmp_path, authority) as target:
        command = ["health", "--target", target, "--tls-ca", str(tmp_path / "ca.crt"), "--json"]
        assert await asyncio.to_thread(main, command) == 0
    assert '"name": "tiny"' in capsys.readouterr().out
