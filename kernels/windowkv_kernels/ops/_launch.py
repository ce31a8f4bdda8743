"""One kernel call that has been planned and not yet made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """A kernel, its grid and its arguments: to be run where its tensors are, or compiled for a GPU elsewhere.

    arguments: every parameter of the kernel by name, the constexpr ones included.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 1

    def run(self) -> None:
        """Queue the kernel on the current stream of its tensors' device; an empty grid is no work."""
        if prod(self.grid) == 0:
            return
        with torch.cuda.device_of(self._any_tensor()):  # Triton launches on the current device
            self.kernel[self.grid](**self.arguments, **self.options)

    @property
    def options(self) -> dict[str, Any]:
        """What the compiler is told; whether it may fuse multiplications and additions has no settled default."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}

    def _any_tensor(self) -> Tensor:
        return next(value for value in self.arguments.values() if isinstance(value, Tensor))


def run_all(launches: Iterable[Launch]) -> None:
    """One after the other, on one stream."""
    for launch in launches:
        launch.run()


def pad_to_power_of_two(number: int, at_least: int = 1) -> int:
    """Triton's tiles have powers of two on their sides."""
    return max(at_least, 1 << (number - 1).bit_length())
