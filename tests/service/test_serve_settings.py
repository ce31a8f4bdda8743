"""A worker that cannot start says why in one sentence and ends with a status that tells whose mistake it was."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from windowkv_service.config import Settings
from windowkv_service.domain.codec import Codec

UNUSABLE, CANNOT_START = 2, 1


def serve(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "windowkv_service", "--listen", "127.0.0.1:0", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("flags", "status", "word"),
    [
        (("--window-size", "0"), UNUSABLE, "window_size"),
        (("--redis", "nonsense"), UNUSABLE, "Redis"),
        (("--tokens-file", "/nowhere.json"), CANNOT_START, "nowhere.json"),
        (("--model", "/nowhere"), CANNOT_START, "config.json"),
        (("--codec", "int3"), UNUSABLE, "codec"),
    ],
)
def test_what_cannot_start_says_why(flags: tuple[str, str], status: int, word: str) -> None:
    ended = serve(*flags)
    assert (ended.returncode, word in ended.stderr) == (status, True), ended.stderr
    assert "Traceback" not in ended.stderr


def test_every_codec_may_be_the_services_choice() -> None:
    assert get_args(Settings.model_fields["codec"].annotation) == tuple(codec.value for codec in Codec)
