"""What an operator reads off a worker that has really worked: every walk leaves its marks in the metrics."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator

import pytest
import redis_server
from prometheus_client.parser import text_string_to_metric_families
from running_service import RunningService
from running_service import running as running_service
from tiny_models import save_tiny_model

from windowkv_client import CacheNotFound, Client
from windowkv_service.telemetry import serve_metrics

NUM_DOCUMENT, NUM_QUESTION, NUM_ANSWER = 200, 9, 6
DOCUMENT = [7 + number % 90 for number in range(NUM_DOCUMENT)]
QUESTION = list(range(30, 30 + NUM_QUESTION))

Scrape = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A worker that has cached a document, been given it again, answered twice about it and refused once."""
    model = save_tiny_model(tmp_path_factory.mktemp("model"), "llama")
    with (
        redis_server.running() as redis,
        running_service(model=str(model), window_size=8, redis_url=redis.url) as service,
        Client(service.target) as client,
    ):
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.3, durability="redis")
        client.caches.create(token_ids=DOCUMENT, kept_ratio=0.3)
        for _ in range(2):
            with client.generate(cache, token_ids=QUESTION, max_tokens=NUM_ANSWER, ignore_eos=True) as stream:
                assert len(list(stream)) > 0
        with pytest.raises(CacheNotFound):
            client.caches.get("caches/" + "0" * 40)
        wait_for_gauges(service)
        yield service


def wait_for_gauges(service: RunningService) -> None:
    """The worker sets them a few times a second; these two come last."""
    sample, until = service.service.metrics.registry.get_sample_value, time.monotonic() + 20
    while not sample("windowkv_tier_entries", {"tier": "redis"}) or sample("windowkv_requests_running"):
        assert time.monotonic() < until, "the gauges were never set"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def scrape(worked: RunningService) -> Scrape:
    with serve_metrics(worked.service.metrics.registry, 0) as endpoint:
        text = urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics", timeout=5).read().decode()
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(scrape: Scrape, name: str, **labels: str) -> float:
    return scrape[name, frozenset(labels.items())]


def test_tokens_are_counted_by_where_their_kv_came_from(scrape: Scrape) -> None:
    computed = value(scrape, "windowkv_prompt_tokens_total", source="computed")
    cached = sum(
        value(scrape, "windowkv_prompt_tokens_total", source=tier) for tier in ("device", "host", "redis")
    )
    assert computed == NUM_DOCUMENT + 2 * NUM_QUESTION
    assert cached == 3 * NUM_DOCUMENT  # the second creation and two answers


def test_generated_tokens_and_the_time_between_them(scrape: Scrape) -> None:
    assert value(scrape, "windowkv_generated_tokens_total") == 2 * NUM_ANSWER
    assert value(scrape, "windowkv_inter_token_latency_seconds_count") == 2 * (NUM_ANSWER - 1)


def test_a_prompt_is_prefilled_and_compressed_once(scrape: Scrape) -> None:
    assert value(scrape, "windowkv_prefill_seconds_count") == 1
    assert value(scrape, "windowkv_compression_ratio_count", method="windowkv") == 1
    assert value(scrape, "windowkv_compression_ratio_sum", method="windowkv") >= 1 / 0.3


def test_each_question_chose_its_windows_and_says_how_well(scrape: Scrape) -> None:
    assert value(scrape, "windowkv_question_selections_total", selection="question") == 2
    assert value(scrape, "windowkv_question_fidelity_count") == 2
    assert 0 < value(scrape, "windowkv_question_fidelity_sum") <= 2


def test_every_request_has_its_times(scrape: Scrape) -> None:
    for call in ("create", "generate"):
        assert value(scrape, "windowkv_request_duration_seconds_count", call=call) == 2
        assert value(scrape, "windowkv_queue_seconds_count", call=call) == 2


def test_tiers_hold_the_entry_and_blocks_have_moved_down(scrape: Scrape) -> None:
    for tier in ("device", "host", "redis"):
        assert value(scrape, "windowkv_tier_entries", tier=tier) == 1, tier
        assert value(scrape, "windowkv_tier_used_bytes", tier=tier) > 0, tier
    for tier in ("host", "redis"):
        assert value(scrape, "windowkv_tier_moves_total", **{"from": "device", "to": tier}) > 0, tier


def test_a_refusal_is_counted_by_its_reason_and_as_a_call(scrape: Scrape) -> None:
    labels = {"grpc_type": "unary", "grpc_service": "windowkv.v1.CacheService", "grpc_method": "GetCache"}
    assert value(scrape, "windowkv_rejected_total", reason="cache_not_found") == 1
    assert value(scrape, "grpc_server_handled_total", **labels, grpc_code="NotFound") == 1


def test_nothing_went_wrong(scrape: Scrape) -> None:
    assert value(scrape, "windowkv_step_faults_total") == 0
    assert value(scrape, "windowkv_recomputes_total") == 0
    assert value(scrape, "windowkv_redis_breaker_state") == 0
    assert (
        sum(number for (name, _), number in scrape.items() if name == "windowkv_checksum_failures_total") == 0
    )
