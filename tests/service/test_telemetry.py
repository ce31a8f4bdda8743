"""Metrics as an operator meets them: what moves, under which names, over HTTP."""

from __future__ import annotations

import ast
import inspect
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from fed_metrics import CACHE, USAGE, feed_everything
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

import windowkv_service
from windowkv_service import errors
from windowkv_service.cache.events import CacheEvents, Departure, Lookup, RedisOp
from windowkv_service.domain.results import CreateOutcome, MissReason, Tier
from windowkv_service.telemetry import (
    GrpcMetrics,
    Metrics,
    RequestMetrics,
    StepMetrics,
    TierMetrics,
    serve_metrics,
)

BOUNDED_LABELS = {
    "tier",
    "result",
    "from",
    "to",
    "reason",
    "method",
    "op",
    "source",
    "call",
    "phase",
    "selection",
}
GRPC_LABELS = {"grpc_type", "grpc_service", "grpc_method", "grpc_code"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def value(metrics: Metrics, name: str, **labels: str) -> float:
    sample = metrics.registry.get_sample_value(name, labels)
    assert sample is not None, f"no sample {name}{labels}"
    return sample


def test_two_workers_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.requests.cancelled("client")
    assert value(first, "windowkv_cancelled_total", reason="client") == 1
    assert value(second, "windowkv_cancelled_total", reason="client") == 0


def test_every_name_carries_the_prefix_and_says_what_it_measures(metrics: Metrics) -> None:
    for family in metrics.registry.collect():
        assert family.name.startswith(("windowkv_", "grpc_server_")), family.name
        assert family.documentation.strip(), family.name


def test_labels_are_the_bounded_ones_only(metrics: Metrics) -> None:
    feed_everything(metrics)
    used = {
        label
        for family in metrics.registry.collect()
        if not family.name.endswith(("_build", "_model"))
        for sample in family.samples
        for label in sample.labels
    }
    assert used <= BOUNDED_LABELS | GRPC_LABELS | {"le"}


def test_nothing_of_a_cache_name_is_ever_exported(metrics: Metrics) -> None:
    feed_everything(metrics)
    with serve_metrics(metrics.registry, 0) as endpoint:
        assert "0123456789" not in scrape(endpoint.port)


def test_every_metric_can_be_fed_by_some_method(metrics: Metrics) -> None:
    before = snapshot(metrics)
    feed_everything(metrics)
    after = snapshot(metrics)
    assert [name for name in after if after[name] == before.get(name)] == []


@pytest.mark.parametrize("group", [Metrics, RequestMetrics, StepMetrics, TierMetrics, GrpcMetrics])
def test_every_metric_is_fed_by_some_room(group: type) -> None:
    methods = {name for name, member in vars(group).items() if inspect.isfunction(member) and name[0] != "_"}
    assert methods - named_elsewhere() == set()


def test_an_answer_counts_its_prompt_tokens_by_source(metrics: Metrics) -> None:
    metrics.requests.answered(USAGE)
    assert value(metrics, "windowkv_prompt_tokens_total", source="redis") == 1000
    assert value(metrics, "windowkv_prompt_tokens_total", source="computed") == 10
    assert value(metrics, "windowkv_generated_tokens_total") == 7
    assert value(metrics, "windowkv_time_to_first_token_seconds_count", source="redis") == 1


def test_an_answer_without_a_cache_has_no_fidelity_to_report(metrics: Metrics) -> None:
    metrics.requests.answered(
        replace(USAGE, cached_tokens=0, source_tier=None, miss_reason=MissReason.NOT_CACHED)
    )
    assert value(metrics, "windowkv_question_fidelity_count") == 0
    assert value(metrics, "windowkv_prompt_tokens_total", source="computed") == 1010


def test_a_hit_is_not_counted_as_a_prefill(metrics: Metrics) -> None:
    metrics.requests.created(CreateOutcome(CACHE, True, 1000, 0.0, 0.0), Tier.HOST)
    assert value(metrics, "windowkv_prefill_seconds_count") == 0
    assert value(metrics, "windowkv_prompt_tokens_total", source="host") == 1000
    assert value(metrics, "windowkv_prompt_tokens_total", source="computed") == 0


def test_compression_is_full_bytes_over_stored_bytes(metrics: Metrics) -> None:
    metrics.steps.compressed(CACHE, 0.01)
    assert value(metrics, "windowkv_compression_ratio_sum", method="windowkv") == 8
    assert value(metrics, "windowkv_stored_bytes_per_token_sum", method="windowkv") == 125


def test_an_entry_that_holds_nothing_on_the_device_has_no_ratio(metrics: Metrics) -> None:
    metrics.steps.compressed(replace(CACHE, stored_bytes=0), 0.01)
    assert (
        metrics.registry.get_sample_value("windowkv_compression_ratio_count", {"method": "windowkv"}) is None
    )


def test_every_error_of_the_family_is_a_bounded_rejection_reason(metrics: Metrics) -> None:
    family = [
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.WindowKVError)
    ]
    for error in family:
        metrics.requests.rejected(error("the message is not a label"))
    assert value(metrics, "windowkv_rejected_total", reason="cache_not_found") == 1
    assert len(samples(metrics, "windowkv_rejected")) <= 2 * len(family)


def test_grpc_codes_are_spelled_as_go_spells_them(metrics: Metrics) -> None:
    for code in ("OK", "NOT_FOUND", "CANCELLED"):
        metrics.grpc.handled("/windowkv.v1.CacheService/GetCache", "unary", code)
    labels = {"grpc_type": "unary", "grpc_service": "windowkv.v1.CacheService", "grpc_method": "GetCache"}
    for code in ("OK", "NotFound", "Canceled"):
        assert value(metrics, "grpc_server_handled_total", **labels, grpc_code=code) == 1


def test_counters_begin_at_zero_so_that_the_first_event_has_a_rate(metrics: Metrics) -> None:
    assert value(metrics, "windowkv_cache_lookups_total", tier="redis", result="corrupt") == 0
    assert value(metrics, "windowkv_tier_moves_total", **{"from": "device", "to": "redis"}) == 0
    assert value(metrics, "windowkv_evictions_total", tier="host", reason="ttl") == 0


def test_a_scrape_is_valid_exposition_text(metrics: Metrics) -> None:
    feed_everything(metrics)
    metrics.watch_process()
    with serve_metrics(metrics.registry, 0) as endpoint:
        families = {family.name for family in text_string_to_metric_families(scrape(endpoint.port))}
    assert {"windowkv_requests_running", "windowkv_cache_lookups", "process_cpu_seconds"} <= families


@pytest.mark.parametrize("name", [name for name in vars(CacheEvents) if not name.startswith("_")])
def test_the_tiers_metrics_take_every_event_of_the_cache(name: str) -> None:
    told, heard = (inspect.signature(getattr(one, name)).parameters for one in (CacheEvents, TierMetrics))
    assert list(told) == list(heard)


def test_every_word_of_the_cache_has_its_series_from_the_beginning(metrics: Metrics) -> None:
    for tier in Tier:
        for outcome in Lookup:
            assert value(metrics, "windowkv_cache_lookups_total", tier=tier.value, result=outcome.value) == 0
        for reason in Departure:
            assert value(metrics, "windowkv_evictions_total", tier=tier.value, reason=reason.value) == 0
    for op in RedisOp:
        assert value(metrics, "windowkv_redis_op_seconds_count", op=op.value) == 0


def test_a_closed_endpoint_answers_no_more_and_may_be_closed_again(metrics: Metrics) -> None:
    endpoint = serve_metrics(metrics.registry, 0)
    assert endpoint.port > 0
    endpoint.close()
    endpoint.close()
    with pytest.raises(urllib.error.URLError):
        scrape(endpoint.port)


def test_an_address_may_stand_in_brackets_as_ipv6_needs(metrics: Metrics) -> None:
    with serve_metrics(metrics.registry, 0, "[127.0.0.1]") as endpoint:
        assert "windowkv_requests_running" in scrape(endpoint.port)


def test_a_taken_port_is_an_error_at_start(metrics: Metrics) -> None:
    with serve_metrics(metrics.registry, 0) as endpoint, pytest.raises(OSError, match="in use"):
        serve_metrics(metrics.registry, endpoint.port)


def named_elsewhere() -> set[str]:
    """All names that follow a dot in the service, but for the files where the metrics are made."""
    service = Path(windowkv_service.__file__).parent
    trees = [
        ast.parse(path.read_text()) for path in service.rglob("*.py") if not path.name.endswith("_metrics.py")
    ]
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def snapshot(metrics: Metrics) -> dict[str, list[tuple[object, float]]]:
    return {family.name: moving(family) for family in metrics.registry.collect()}


def moving(family: Metric) -> list[tuple[object, float]]:
    """A family's values, without the times of creation."""
    return [
        (sample.labels, sample.value) for sample in family.samples if not sample.name.endswith("_created")
    ]


def samples(metrics: Metrics, family_name: str) -> list[float]:
    return [s.value for f in metrics.registry.collect() if f.name == family_name for s in f.samples]


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        return str(reply.read().decode())
