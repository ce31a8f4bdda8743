"""Addresses, what goes with every call, and the way to the worker that holds a document."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from windowkv_client import Cache, Client, Unavailable
from windowkv_client._channel import Address, grpc_target, service_config
from windowkv_client._environment import DEFAULT_TARGET
from windowkv_client.testing import InProcessServer

NUM_DOCUMENTS = 24


@pytest.mark.parametrize(
    ("target", "dialled"),
    [
        ("localhost:50051", "localhost:50051"),
        ("unix:/run/windowkv.sock", "unix:/run/windowkv.sock"),
        ("dns:///pods:50051", "dns:///pods:50051"),
        ("10.0.0.1:1, 10.0.0.2:1", "ipv4:10.0.0.1:1,10.0.0.2:1"),
        ("[::1]:1,[::2]:1", "ipv6:[::1]:1,[::2]:1"),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", "ipv4:10.0.0.1:1,10.0.0.2:1"),
    ],
)
def test_a_target_as_people_write_it(target: str, dialled: str) -> None:
    assert grpc_target(target) == dialled


@pytest.mark.parametrize("target", ["dns:///pods:1", "10.0.0.1:1,10.0.0.2:1"])
def test_a_fleet_is_hashed_by_the_caches_name(target: str) -> None:
    config = json.loads(dict(Address(target)._dial()[1])["grpc.service_config"])
    assert config["loadBalancingConfig"] == [
        {"ring_hash_experimental": {"minRingSize": 4096, "requestHashHeader": "x-windowkv-cache-key"}}
    ]


def test_what_may_be_asked_twice_is_retried_by_grpc_and_an_answer_is_not() -> None:
    (retried,) = service_config(is_fleet=False)["methodConfig"]  # type: ignore[misc]
    services = {name["service"] for name in retried["name"]}
    assert "windowkv.v1.CacheService" in services and "windowkv.v1.GenerationService" not in services
    assert retried["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


def test_the_environment_says_what_the_caller_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WINDOWKV_TARGET", raising=False)
    with Client() as client:
        assert client.target == DEFAULT_TARGET
    with InProcessServer(token="secret") as server:
        monkeypatch.setenv("WINDOWKV_TARGET", server.target)
        monkeypatch.setenv("WINDOWKV_TOKEN", "secret")
        with Client() as client:
            assert client.models.get().name == "copying"
        with Client("127.0.0.1:1") as client:
            assert client.target == "127.0.0.1:1"


def test_a_socket_file_is_an_address(tmp_path: Path) -> None:
    with InProcessServer(listen=f"unix:{tmp_path}/w.sock") as server, server.client() as client:
        assert client.health().is_serving


def test_nobody_there_is_told_as_unavailable() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(Unavailable) as raised:
        client.models.get(timeout=5.0)
    assert raised.value.status == "UNAVAILABLE"


def test_in_a_fleet_every_document_has_its_worker_and_a_loss_moves_only_its_own() -> None:
    servers = [InProcessServer(model_name=f"worker-{index}") for index in range(3)]
    for server in servers:
        server.start()
    try:
        with Client(",".join(server.target for server in servers)) as client:
            caches = [_everywhere(servers, f"document {index}. ") for index in range(NUM_DOCUMENTS)]
            homes = {cache.name: _home(client, cache) for cache in caches}
            assert homes == {cache.name: _home(client, cache) for cache in caches}
            assert len(Counter(homes.values())) == 3
            servers[0].stop()
            moved = {cache.name: _home(client, cache) for cache in caches}
        assert all(moved[name] == home for name, home in homes.items() if home != "worker-0")
        assert set(moved.values()) == {"worker-1", "worker-2"}
    finally:
        for server in servers:
            server.stop()


def _everywhere(servers: list[InProcessServer], document: str) -> Cache:
    """The document in every worker; its name is the same in each."""
    shelved = []
    for server in servers:
        with server.client() as client:
            shelved.append(client.caches.create(document))
    assert len({cache.name for cache in shelved}) == 1
    return shelved[0]


def _home(client: Client, cache: Cache) -> str:
    return client.caches.get(cache).model
