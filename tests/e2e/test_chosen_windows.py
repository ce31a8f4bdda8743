"""Which windows a question sees: those that it chooses, fewer where it asks for less, all on request."""

from __future__ import annotations

from pathlib import Path

from asking import answer, asking, create_in_redis, random_tokens
from reference_generation import masked_generate, plain_generate
from running_service import START, RunningService
from seen_windows import seen_positions

from windowkv_client import Client

DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)


def test_windows_chosen_by_the_question_are_the_positions_that_are_seen(start: START, model: Path) -> None:
    """Before a restart and after it, with the chosen blocks fetched from below."""
    positions = []
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.4)
        positions.append(check_against_masked_forward(worker, client, cache.name, model))
        published = worker.ask(lambda resources: resources.store.get("default", cache.name).windows)
    with start() as worker, asking(worker) as client:
        positions.append(check_against_masked_forward(worker, client, cache.name, model))
        window_size = worker.resources.model.layout.window_size
    assert positions[0] == positions[1]
    seen = {position // window_size for position in positions[0][0]}
    assert seen != set(published[0]), "the question chose what was published: this test shows nothing"


def check_against_masked_forward(
    worker: RunningService, client: Client, name: str, model: Path
) -> dict[int, list[int]]:
    with client.generate(name, token_ids=QUESTION, max_tokens=300, ignore_eos=True) as stream:
        said = list(next(stream).token_ids)
        kept = seen_positions(worker)
        while len(said) < 14:
            said += next(stream).token_ids
    assert said[:14] == masked_generate(model, DOCUMENT, QUESTION, kept, 14)
    return kept


def test_a_smaller_share_for_one_question_is_a_smaller_table(start: START) -> None:
    with start() as worker, asking(worker) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.6)
        wide, narrow = answer(client, QUESTION, cache), answer(client, QUESTION, cache, kept_ratio=0.3)
        full = answer(client, QUESTION, cache, selection="full")
    assert narrow.usage.kept_tokens < wide.usage.kept_tokens < full.usage.kept_tokens == len(DOCUMENT)
    assert narrow.usage.device_bytes < 0.3 * cache.full_bytes
    assert narrow.usage.fidelity < wide.usage.fidelity < full.usage.fidelity == 1.0


def test_every_window_on_request_is_the_uncompressed_answer(start: START, model: Path) -> None:
    with start() as worker, asking(worker) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.3)
        said = answer(client, QUESTION, cache, selection="full")
        assert said.token_ids == plain_generate(model, DOCUMENT + QUESTION, 14)
