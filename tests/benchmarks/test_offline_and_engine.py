"""What is measured outside the engine is what the engine does: the same windows, the same answers."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from asking import answer, asking
from cached_documents import cached_document, random_ids, tiny_model
from offline.asking import Asking
from offline.chooser import Unmoved
from offline.document import CachedDocument
from offline.trial import Trial
from running_service import running

from windowkv_client import Cache, Client
from windowkv_service.selection import default_profile

NUM_TOKENS, KEPT = 440, 0.3  # 28 windows, of which five fit beside the leader keys
QUESTION = random_ids(13, 2)
LENGTH = 12


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> CachedDocument:
    return cached_document(tiny_model(tmp_path_factory.mktemp("tiny")), NUM_TOKENS)


@pytest.fixture(scope="module")
def client(document: CachedDocument) -> Iterator[Client]:
    model = str(document.model.directory)
    with running(model=model, window_size=16, device_tier_bytes=1 << 23) as worker, asking(worker) as client:
        yield client


@pytest.fixture(scope="module")
def cache(client: Client) -> Cache:
    return client.caches.create(token_ids=random_ids(NUM_TOKENS, 1), kept_ratio=KEPT)


@pytest.mark.parametrize("every", [0, 1, 3])
def test_answers_agree(document: CachedDocument, client: Client, cache: Cache, every: int) -> None:
    profile = replace(default_profile(document.layout), reselect_every=every)
    (offline,) = Asking(document, [Trial("base", profile)], KEPT).answer(QUESTION, LENGTH)
    served = answer(client, QUESTION, cache, max_tokens=LENGTH, ignore_eos=False, reselect_every=every)
    assert served.token_ids == offline.token_ids
    assert served.usage.selections == offline.num_listened


def test_answers_over_everything_agree_and_are_others(
    document: CachedDocument, client: Client, cache: Cache
) -> None:
    (offline,) = Asking(document, [Unmoved(is_full=True)], 1.0).answer(QUESTION, LENGTH)
    served = answer(client, QUESTION, cache, max_tokens=LENGTH, ignore_eos=False, selection="full")
    assert served.token_ids == offline.token_ids
    (chosen,) = Asking(document, [Trial("base", default_profile(document.layout))], KEPT).answer(
        QUESTION, LENGTH
    )
    assert chosen.token_ids != offline.token_ids
