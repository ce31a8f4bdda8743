"""The Triton kernels on a real GPU, against fp64 on random data, into memory full of NaN."""

from __future__ import annotations

import pytest
import torch
from kernel_cases.on_gpu import CASES, Case

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gpu_computes_what_the_definition_says(case: Case) -> None:
    case.check(torch.device("cuda"))
