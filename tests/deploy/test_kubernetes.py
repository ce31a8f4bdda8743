"""Kubernetes manifests: built by the real tool, valid, and in step with the service."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import kustomize
import pytest
import yaml
from deployment import DEPLOY, KUBERNETES, known_settings, settings
from kustomize import Manifest

from windowkv_service.config import Settings

OVERLAYS = ["cpu", "gpu"]
COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())
# The operator's own kinds, which Kubernetes has no schema for.
CUSTOM_KINDS = {"ServiceMonitor", "PrometheusRule"}
MIB = 1 << 20


@pytest.fixture(scope="module")
def overlays() -> dict[str, list[Manifest]]:
    return {name: kustomize.build(KUBERNETES / "overlays" / name) for name in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest, overlays: dict[str, list[Manifest]]) -> list[Manifest]:
    return overlays[request.param]


def test_every_object_is_valid(manifests: list[Manifest]) -> None:
    validate(manifests)


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_can_be_added_to_the_base(component: str, tmp_path: Path) -> None:
    copy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, copy)
    overlay = copy / "kubernetes" / "overlays" / "trial"
    overlay.mkdir()
    body = {"resources": ["../../base"], "components": [f"../../components/{component}"]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(body))
    manifests = kustomize.build(overlay)
    validate(manifests)
    assert_explained(secrets(manifests))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert len({"grpc", "exec", "tcpSocket", "httpGet"} & worker(manifests)[probe].keys()) == 1


def test_the_worker_starts_with_its_settings(manifests: list[Manifest]) -> None:
    made = worker_settings(manifests)
    assert made.listen == "0.0.0.0:50051"
    assert not made.has_development_secret
    assert made.redis_url


def test_settings_are_spelled_as_the_service_reads_them(manifests: list[Manifest]) -> None:
    assert worker_environment(manifests).keys() <= known_settings()


def test_a_services_links_do_not_leak_into_the_settings(manifests: list[Manifest]) -> None:
    """A Service named windowkv would set WINDOWKV_PORT and its like in every pod of the namespace."""
    assert [pod["enableServiceLinks"] for pod in pods(manifests)] == [False] * len(pods(manifests))


def test_ports_are_the_ones_the_worker_listens_on(manifests: list[Manifest]) -> None:
    made = worker_settings(manifests)
    ports = {port["name"]: str(port["containerPort"]) for port in worker(manifests)["ports"]}
    assert made.listen.endswith(f":{ports['grpc']}")
    assert made.metrics_listen.endswith(f":{ports['metrics']}")


def test_probes_ask_the_health_service_by_its_names(manifests: list[Manifest]) -> None:
    container = worker(manifests)
    assert container["startupProbe"]["grpc"] == {"port": 50051, "service": "readiness"}
    assert container["readinessProbe"]["grpc"] == {"port": 50051, "service": "readiness"}
    assert container["livenessProbe"]["grpc"] == {"port": 50051, "service": "liveness"}


def test_a_worker_may_finish_its_drain_before_it_is_killed(manifests: list[Manifest]) -> None:
    grace_s = pod_of(manifests, "windowkv")["terminationGracePeriodSeconds"]
    pre_stop_s = worker(manifests)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert grace_s >= pre_stop_s + worker_settings(manifests).drain_s + 10


def test_the_tiers_fit_into_the_memory(manifests: list[Manifest]) -> None:
    made = worker_settings(manifests)
    on_device = made.device_tier_bytes if made.device == "cpu" else 0
    needed = made.host_tier_bytes + on_device + 1024 * MIB  # and the process itself
    assert needed <= size_bytes(worker(manifests)["resources"]["limits"]["memory"])


def test_redis_stays_below_its_containers_memory(overlays: dict[str, list[Manifest]]) -> None:
    (redis,) = pod_of(overlays["cpu"], "windowkv-redis")["containers"]
    maxmemory = redis["args"][redis["args"].index("--maxmemory") + 1].replace("gb", "Gi")
    assert size_bytes(maxmemory) <= 0.75 * size_bytes(redis["resources"]["limits"]["memory"])


def test_every_selector_finds_pods(manifests: list[Manifest]) -> None:
    labels = [d["spec"]["template"]["metadata"]["labels"].items() for d in of_kind(manifests, "Deployment")]
    for selector in selectors(manifests):
        assert any(selector.items() <= of_pod for of_pod in labels), selector


def test_the_monitor_finds_its_service_and_port(overlays: dict[str, list[Manifest]]) -> None:
    (monitor,) = of_kind(overlays["gpu"], "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [s for s in of_kind(overlays["gpu"], "Service") if wanted <= s["metadata"]["labels"].items()]
    ports = {port["name"] for service in found for port in service["spec"]["ports"]}
    assert len(found) == 1
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_clients_can_dial_every_pod_by_one_name(manifests: list[Manifest]) -> None:
    service = find(manifests, "Service", "windowkv-pods")
    assert service["spec"]["clusterIP"] == "None"
    assert not service["spec"]["publishNotReadyAddresses"]


def test_no_secret_is_committed_and_each_one_needed_is_explained(manifests: list[Manifest]) -> None:
    assert of_kind(manifests, "Secret") == []
    assert_explained(secrets(manifests))


def test_every_config_map_mentioned_is_there(manifests: list[Manifest]) -> None:
    there = {config_map["metadata"]["name"] for config_map in of_kind(manifests, "ConfigMap")}
    mentioned = {value for key, value in references(pods(manifests)) if key in ("configMap", "configMapRef")}
    assert mentioned <= there


def test_every_pod_meets_the_restricted_standard(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert not context["allowPrivilegeEscalation"]
            assert context["readOnlyRootFilesystem"]
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_network_policies_name_their_directions(manifests: list[Manifest]) -> None:
    for policy in of_kind(manifests, "NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def validate(manifests: list[Manifest]) -> None:
    assert manifests
    for manifest in manifests:
        if manifest["kind"] not in CUSTOM_KINDS:
            kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (manifest for manifest in of_kind(manifests, kind) if manifest["metadata"]["name"] == name)
    return found


def pods(manifests: list[Manifest]) -> list[dict[str, Any]]:
    return [deployment["spec"]["template"]["spec"] for deployment in of_kind(manifests, "Deployment")]


def pod_of(manifests: list[Manifest], deployment: str) -> dict[str, Any]:
    spec = find(manifests, "Deployment", deployment)["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def worker(manifests: list[Manifest]) -> dict[str, Any]:
    (container,) = pod_of(manifests, "windowkv")["containers"]
    assert isinstance(container, dict)
    return container


def worker_environment(manifests: list[Manifest]) -> dict[str, str]:
    """The config map's settings, and a stand-in for each value that comes from a secret."""
    container = worker(manifests)
    (source,) = container["envFrom"]
    values = dict(find(manifests, "ConfigMap", source["configMapRef"]["name"])["data"])
    return values | {variable["name"]: "redis://from-a-secret:6379/0" for variable in container["env"]}


def worker_settings(manifests: list[Manifest]) -> Settings:
    return settings(worker_environment(manifests))


def selectors(manifests: list[Manifest]) -> list[dict[str, str]]:
    services = [one["spec"]["selector"] for one in of_kind(manifests, "Service")]
    budgets = [one["spec"]["selector"]["matchLabels"] for one in of_kind(manifests, "PodDisruptionBudget")]
    policies = [one["spec"]["podSelector"]["matchLabels"] for one in of_kind(manifests, "NetworkPolicy")]
    return services + budgets + policies


def assert_explained(names: set[str]) -> None:
    readme = (DEPLOY / "README.md").read_text()
    for name in names:
        assert f"create secret generic {name} " in readme, name


def secrets(manifests: list[Manifest]) -> set[str]:
    return {value for key, value in references(pods(manifests)) if key in ("secretKeyRef", "secret")}


def references(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(kind of reference, name of what is referred to), anywhere below node."""
    if isinstance(node, dict):
        for name in ("name", "secretName"):
            if isinstance(node.get(name), str):
                yield key, node[name]
        for child_key, child in node.items():
            yield from references(child, child_key)
    elif isinstance(node, list):
        for child in node:
            yield from references(child, key)


def size_bytes(quantity: str) -> int:
    units = {"Mi": MIB, "Gi": 1024 * MIB}
    return int(quantity[:-2]) * units[quantity[-2:]]
