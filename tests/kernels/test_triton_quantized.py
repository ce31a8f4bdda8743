"""Quantized keys and blocks in the interpreter."""

from __future__ import annotations

import pytest
import torch
from kernel_cases.quantized import TINY, BlocksCase, KeysCase

from windowkv_kernels import quantize_keys

pytestmark = pytest.mark.usefixtures("on_triton")


@pytest.mark.parametrize("case", TINY, ids=str)
def test_the_error_keeps_its_bound_and_codes_mean_what_the_reference_says(
    case: KeysCase | BlocksCase,
) -> None:
    case.check(torch.device("cpu"))


@pytest.mark.filterwarnings(
    "ignore::RuntimeWarning"
)  # numpy, which the interpreter computes with, says so too
@pytest.mark.parametrize("trouble", [float("nan"), float("inf"), -float("inf")])
def test_keys_that_are_not_finite_are_refused(trouble: float) -> None:
    keys = torch.randn(20, 2, 16)
    keys[17, 1, 9] = trouble
    with pytest.raises(ValueError, match="finite"):
        quantize_keys(keys, bits=4, group_tokens=8)
