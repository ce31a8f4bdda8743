"""What transformers' modules find out anew in every pass although it never changes, found out once.

A pass that looks at a number, or brings one from the host, makes a GPU wait, and no CUDA graph can hold it.
"""

from __future__ import annotations

from functools import partial
from math import sqrt

import torch
from torch import Tensor, nn

_HELD = "default"  # the kind of rotation that is never updated


def hold_constants(module: nn.Module) -> None:
    """Prepare a module whose positions stay below the loader's max_tokens; what it computes stays the same."""
    for part in module.modules():
        _hold_rotation(part)
        _hold_sparsity(part)


def _hold_rotation(part: nn.Module) -> None:
    """Rotations that follow the length seen so far ask for the largest position. Up to max_tokens they are what they
    were made as."""
    kind = getattr(part, "rope_type", None)
    if isinstance(kind, dict):
        part.rope_type = dict.fromkeys(kind, _HELD)  # type: ignore[assignment]
    elif isinstance(kind, str):
        part.rope_type = _HELD  # type: ignore[assignment]


def _hold_sparsity(part: nn.Module) -> None:
    """Gemma 3n's sparse layers keep what lies far above the mean, and work out how far from the configuration."""
    share = getattr(part, "activation_sparsity", None)
    if not isinstance(share, float) or share == 0.0:
        return
    dtype = next(part.parameters()).dtype
    cut = torch.erfinv(2 * torch.tensor(share) - 1) * sqrt(
        2
    )  # of a normal distribution, so much lies below it
    own = partial(_above, num_deviations=float(cut.to(dtype)))
    part._gaussian_topk = own  # type: ignore[assignment]  # in place of the module's method


def _above(numbers: Tensor, *, num_deviations: float) -> Tensor:
    """max(0, x - mean - num_deviations · deviation) along the last axis."""
    deviation = numbers.std(dim=-1, keepdim=True, unbiased=False)
    return nn.functional.relu(numbers - (numbers.mean(dim=-1, keepdim=True) + deviation * num_deviations))
