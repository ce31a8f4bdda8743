"""The service's own parts on a real GPU."""

from __future__ import annotations

import pytest
import torch
from gpu_checks import CHECKS, Check

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_a_gpu(check: Check) -> None:
    check(torch.device("cuda"))
