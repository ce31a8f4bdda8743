"""Rules and dashboard: they parse, and every metric and label they name is one the worker exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql
import pytest
import yaml
from deployment import DEPLOY, KUBERNETES
from fed_metrics import feed_everything

from windowkv_service.telemetry import Metrics

Series = dict[str, dict[str, set[str]]]  # series → label → the values it took

GROUPS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "windowkv.json").read_text())
# Labels that Prometheus adds to everything it scrapes.
SCRAPE_LABELS = {"instance", "job"}
# Values that appear with their first event: reasons of errors.py and gRPC's status codes.
LATE_VALUES = {"queue_full", "cache_full", "Internal", "Unknown", "DataLoss"}
# Worth keeping for a question one day, not worth a panel.
NOT_SHOWN = re.compile(r"(python_|process_|_created$|_info$)")


@pytest.fixture(scope="module")
def exported() -> Series:
    """All series of a worker that has seen everything once; labels of fixed lists have all their values."""
    metrics = Metrics()
    metrics.watch_process()
    feed_everything(metrics)
    series: Series = {"up": {}}
    for family in metrics.registry.collect():
        for sample in family.samples:
            labels = series.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return series


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_reads_series_that_exist(rule: dict[str, Any], exported: Series) -> None:
    assert_known(rule["expr"], exported)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert alert["annotations"].keys() == {"summary", "action"}


def test_no_two_rules_have_one_name() -> None:
    names = [rule.get("alert") or rule["record"] for rule in RULES]
    assert len(names) == len(set(names))


def test_the_cluster_gets_the_same_rules() -> None:
    path = KUBERNETES / "components" / "monitoring" / "prometheusrule.yaml"
    assert yaml.safe_load(path.read_text())["spec"]["groups"] == GROUPS


def test_every_panel_reads_series_that_exist(exported: Series) -> None:
    for expression in expressions():
        assert_known(expression, exported)


def test_every_metric_of_the_worker_is_on_the_dashboard(exported: Series) -> None:
    shown = {
        family(selected.name) for expression in expressions() for selected in promql.selected(expression)
    }
    wanted = {family(name) for name in exported if not NOT_SHOWN.search(name) and name != "up"}
    assert wanted - shown == set()


def test_every_panel_asks_the_data_source_that_the_reader_chose() -> None:
    (variable,) = [one for one in DASHBOARD["templating"]["list"] if one["type"] == "datasource"]
    assert variable["name"] == "DS_PROMETHEUS"
    for panel in panels():
        assert panel["datasource"]["uid"] == "${DS_PROMETHEUS}"
        assert all(target["datasource"]["uid"] == "${DS_PROMETHEUS}" for target in panel["targets"])


def test_every_panel_says_what_it_shows() -> None:
    assert [panel["title"] for panel in panels() if not panel["description"].endswith(".")] == []


def test_panels_do_not_lie_on_each_other() -> None:
    seen: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & seen, panel["title"]
        seen |= cells


def test_legends_use_labels_that_the_expression_keeps() -> None:
    for panel in panels():
        for target in panel["targets"]:
            for label in re.findall(r"{{(\w+)}}", target.get("legendFormat", "")):
                is_kept = re.search(rf"by \([^)]*\b{label}\b", target["expr"])
                assert is_kept or label in SCRAPE_LABELS, target["expr"]


def test_prometheus_scrapes_the_worker_and_loads_the_rules() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    compose = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "windowkv"]
    (source,) = job["dns_sd_configs"]
    assert config["rule_files"] == ["rules.yml"]
    for name in ("worker-cpu", "worker-gpu"):
        worker = compose["services"][name]
        assert worker["networks"]["default"]["aliases"] == source["names"]
        assert worker["environment"]["WINDOWKV_METRICS_LISTEN"].endswith(f":{source['port']}")


def assert_known(expression: str, exported: Series) -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    for selected in promql.selected(expression):
        assert selected.name in exported.keys() | recorded, selected.name
        labels = exported.get(selected.name, {"source": {"computed"}})
        for label, pattern in selected.labels.items():
            if label not in SCRAPE_LABELS:
                assert label in labels, f"{selected.name} has no label {label}"
                assert_possible(pattern, labels[label], selected.name)


def assert_possible(pattern: str, values: set[str], name: str) -> None:
    """Each alternative of a matcher can match a value that the label takes."""
    for one in pattern.split("|"):
        assert any(re.fullmatch(one, value) for value in values | LATE_VALUES), f"{name}: {one}"


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")


def family(series: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", series)
