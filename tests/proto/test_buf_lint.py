"""buf's STANDARD and COMMENTS rules hold. Without buf and without npm to bring it, this fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_protos_are_clean() -> None:
    command = [sys.executable, ROOT / "proto/lint.py"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
