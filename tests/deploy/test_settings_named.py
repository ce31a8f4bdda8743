"""Deployment files name the settings that the service has, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from deployment import COMPOSE_FILE, DEPLOY, NAMED, ROOT, known_settings

FILES = [COMPOSE_FILE, *sorted(path for path in DEPLOY.rglob("*") if path.is_file())]
# What the SDK and the command line read, in pages that show how to use them.
OF_THE_CLIENT = {"WINDOWKV_TARGET", "WINDOWKV_TOKEN"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_named_is_one_the_service_reads(path: Path) -> None:
    named = set(NAMED.findall(path.read_text()))
    assert named - known_settings() - OF_THE_CLIENT == set()
