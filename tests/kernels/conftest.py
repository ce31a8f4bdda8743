"""The Triton twins, run by Triton's interpreter on CPU tensors."""

from __future__ import annotations

import pytest
import triton

from windowkv_kernels import ops


@pytest.fixture
def on_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """The door gives CPU tensors to the Triton twins too."""
    assert triton.knobs.runtime.interpret, "set TRITON_INTERPRET=1, as `make test` does"
    monkeypatch.setattr("windowkv_kernels.twins", lambda device: ops)
