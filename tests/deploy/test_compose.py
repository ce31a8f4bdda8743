"""docker-compose.yml: valid, closed by default, and in step with the images and the service."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import dockerfile
import pytest
from deployment import COMPOSE_FILE, DOCKERFILE, ROOT, compose, known_settings, settings

COMPOSE = compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKERS = [name for name in SERVICES if name.startswith("worker-")]


def test_it_is_valid_under_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run([*command, str(COMPOSE_FILE)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_device_has_its_profile() -> None:
    profiles = {name: SERVICES[name]["profiles"] for name in WORKERS}
    assert profiles == {"worker-cpu": ["cpu"], "worker-gpu": ["gpu"]}


def test_monitoring_comes_on_request_and_redis_always() -> None:
    assert SERVICES["prometheus"]["profiles"] == SERVICES["grafana"]["profiles"] == ["obs"]
    assert "profiles" not in SERVICES["redis"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_unless_somebody_says_otherwise(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert with_defaults(port).startswith("127.0.0.1:"), port


def test_redis_is_not_published() -> None:
    assert "ports" not in SERVICES["redis"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_says_when_it_is_healthy(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize("name", SERVICES)
def test_images_from_elsewhere_are_pinned_to_a_release(name: str) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+", SERVICES[name]["image"]), SERVICES[name]["image"]


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_files_exist(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = with_defaults(volume).split(":")[0]
        assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"], volume


@pytest.mark.parametrize("name", WORKERS)
def test_a_workers_image_is_a_target_of_the_dockerfile(name: str) -> None:
    build = SERVICES[name]["build"]
    assert ROOT / build["dockerfile"] == DOCKERFILE
    assert build["target"] in dockerfile.read(DOCKERFILE).stages


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_starts_with_its_environment(name: str) -> None:
    made = settings({**image_environment(name), **given(name)})
    assert made.listen == "0.0.0.0:50051"
    assert made.metrics_listen == "0.0.0.0:9090"
    assert made.redis_url == "redis://redis:6379/0"
    assert f"worker-{ {'cpu': 'cpu', 'cuda': 'gpu'}[made.device] }" == name


@pytest.mark.parametrize("name", WORKERS)
def test_every_setting_of_the_service_can_be_given(name: str) -> None:
    assert set(SERVICES[name]["environment"]) == known_settings()


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_may_finish_its_drain_before_it_is_killed(name: str) -> None:
    grace_s = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    assert grace_s >= settings(given(name)).drain_s + 10


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_has_no_rights_it_does_not_need(name: str) -> None:
    worker = SERVICES[name]
    assert worker["read_only"]
    assert worker["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in worker["security_opt"]


def given(name: str) -> dict[str, str]:
    """The environment that the file itself sets; what is passed through has no value here."""
    return {key: value for key, value in SERVICES[name]["environment"].items() if value is not None}


def image_environment(name: str) -> dict[str, str]:
    return dockerfile.read(DOCKERFILE).environment(SERVICES[name]["build"]["target"])


def with_defaults(text: str) -> str:
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
