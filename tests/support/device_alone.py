"""Device memory without a device: tensors that have a shape and no numbers, and nobody may ask for any.

Whatever a GPU would be waited for, or what no CUDA graph could hold, raises: a number that the host looks at, a shape
that depends on numbers, a copy from the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
_LOOKS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique", "item"}
_INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_"}


class HostLooked(AssertionError):
    """What is to stay on the device did not."""


class _NoNumbers(TorchFunctionMode):
    """Tensors of the host's numbers are made below what dispatch shows."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (torch.tensor, torch.as_tensor, torch.from_numpy, torch.frombuffer):
            raise HostLooked("numbers come from the host")
        return func(*args, **(kwargs or {}))


class _NoLooking(TorchDispatchMode):
    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name in _LOOKS or (name in _INDEXES and any(_is_mask(each) for each in tensors[1:])):
            raise HostLooked(f"{name} waits for the device")
        if name.startswith("lift_fresh") or any(each.device != DEVICE and each.dim() for each in tensors):
            raise HostLooked(f"{name} brings numbers from the host")
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) and leaf.device != DEVICE for leaf in tree_leaves(result)):
            raise HostLooked(f"{name} makes something on the host")
        return result


def _is_mask(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.bool, torch.uint8)


@contextmanager
def device_alone() -> Iterator[None]:
    """Nothing inside may need the host."""
    with _NoNumbers(), _NoLooking():
        yield


class _NoWaitingCopies(TorchFunctionMode):
    """A tensor of the host's numbers that is made on the device waits for what a GPU is doing; on_device does not."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (torch.tensor, torch.as_tensor) and (kwargs or {}).get("device") == DEVICE:
            raise HostLooked("a copy of the host's numbers that waits")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting_copies() -> Iterator[None]:
    with _NoWaitingCopies():
        yield


def raises(work: Callable[[], object]) -> bool:
    try:
        with device_alone():
            work()
    except HostLooked:
        return True
    return False
