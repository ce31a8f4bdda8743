"""Every method that the worker offers makes a cache that answers, within the bytes that were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import answer, asking, random_tokens
from running_service import RunningService, running
from tiny_models import save_tiny_model

from windowkv_client import Client
from windowkv_service.selection import selectors

DOCUMENT = random_tokens(1, 203)
QUESTION = random_tokens(2, 9)
METHODS = sorted(set(selectors(None)) - {"full"})


@pytest.fixture(scope="module", params=["llama", "gemma3n"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=4, chunk_tokens=64, device_tier_bytes=1 << 23) as worker:
        yield worker


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    with asking(service) as client:
        yield client


@pytest.mark.parametrize("retention", ["selected", "full"])
@pytest.mark.parametrize("method", METHODS)
def test_it_answers_within_its_budget(client: Client, method: str, retention: str) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, method=method, kept_ratio=0.5, retention=retention)
    said = answer(client, QUESTION, cache)
    assert len(said.token_ids) == 14
    assert 0.4 * cache.full_bytes < said.usage.device_bytes <= 0.5 * cache.full_bytes
    assert cache.stored_bytes <= said.usage.device_bytes
    assert 0.0 < said.usage.fidelity < 1.0
