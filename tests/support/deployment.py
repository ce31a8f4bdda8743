"""Where the deployment's files are, and what their settings mean to the service."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from windowkv_service.config import Settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
COMPOSE_FILE = ROOT / "docker-compose.yml"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
PREFIX = "WINDOWKV_"

NAMED = re.compile(rf"\b{PREFIX}[A-Z0-9_]+")


def compose() -> dict[str, Any]:
    loaded = yaml.safe_load(COMPOSE_FILE.read_text())
    assert isinstance(loaded, dict)
    return loaded


def known_settings() -> set[str]:
    """The environment variables that the service reads."""
    return {PREFIX + name.upper() for name in Settings.model_fields}


def settings(environment: Mapping[str, str]) -> Settings:
    """What the service makes of an environment; pydantic's ValidationError when it would refuse to start."""
    with mock.patch.dict(os.environ, dict(environment), clear=True):
        return Settings()
