"""What is kept below whatever is chosen goes down while the rest of the prompt is being computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from asking import asking, prefilled_tokens, random_tokens
from running_service import RunningService, running
from tiny_models import save_tiny_model
from torch import Tensor

from windowkv_client import Client
from windowkv_service.kv.copies import Landing, PlainCopies

WINDOW, CHUNK = 8, 64
DOCUMENT = random_tokens(1, 157)
WHOLE = 157 // WINDOW  # windows, and a ragged one


class NotingCopies(PlainCopies):
    """sent: how many tokens the worker had prefilled when so many bytes went down."""

    def __init__(self, worker: RunningService) -> None:
        self._worker = worker
        self.sent: dict[int, int] = {}

    def out(self, sources: Sequence[Tensor], targets: Sequence[memoryview]) -> Landing:
        done = int(prefilled_tokens(self._worker))
        self.sent[done] = self.sent.get(done, 0) + sum(source.nbytes for source in sources)
        return super().out(sources, targets)


@pytest.fixture
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    model = save_tiny_model(tmp_path_factory.mktemp("model"), "llama")
    with running(
        model=str(model), window_size=WINDOW, chunk_tokens=CHUNK, device_tier_bytes=1 << 22
    ) as worker:
        worker.resources.copies = NotingCopies(worker)
        yield worker


@pytest.fixture
def client(worker: RunningService) -> Iterator[Client]:
    with asking(worker) as client:
        yield client


def sent(worker: RunningService) -> dict[int, int]:
    copies = worker.resources.copies
    assert isinstance(copies, NotingCopies)
    return copies.sent


def window_bytes(worker: RunningService) -> int:
    layout = worker.resources.model.layout
    return sum(map(layout.block_bytes, layout.groups))


def test_windows_go_when_they_are_computed(client: Client, worker: RunningService) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4)
    per_window = window_bytes(worker)
    found = sent(worker)
    assert list(found) == [64, 128, 157]
    assert found[64] == found[128] == CHUNK // WINDOW * per_window
    assert found[157] == (WHOLE + 1 - 128 // WINDOW) * per_window + cache.index_bytes


def test_a_full_cache_goes_as_well(client: Client, worker: RunningService) -> None:
    client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0, retention="selected")
    assert list(sent(worker)) == [64, 128, 157]
    assert sum(sent(worker).values()) == (WHOLE + 1) * window_bytes(worker)


def test_single_tokens_are_chosen_from_a_prompt_that_is_kept_whole(
    client: Client, worker: RunningService
) -> None:
    client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4, method="snapkv")
    assert list(sent(worker)) == [64, 128, 157]
    assert sum(sent(worker).values()) > (WHOLE + 1) * window_bytes(worker)


@pytest.mark.parametrize(
    "options", [{"retention": "selected"}, {"method": "pyramidinfer"}], ids=lambda options: str(options)
)
def test_what_may_be_dropped_waits_for_the_choice(
    client: Client, worker: RunningService, options: dict[str, str]
) -> None:
    client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4, **options)  # type: ignore[arg-type]
    assert min(sent(worker)) >= len(DOCUMENT)
    assert 0 < sum(sent(worker).values()) < WHOLE * window_bytes(worker)
