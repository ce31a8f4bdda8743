"""Host memory that the system does not move, which a GPU reads and writes by itself."""

from __future__ import annotations

import mmap
import warnings
import weakref

import torch
from torch import Tensor

PORTABLE = 1  # cudaHostRegisterPortable: page-locked for every device


def page_locked(size_bytes: int, device: torch.device) -> Tensor:
    """[size_bytes] uint8, exactly so much: torch's own allocator of page-locked memory takes the next power of two. The
    pages are the memory's alone, and unlocked when its last view is gone. What the system will not lock is ordinary
    memory."""
    pages = mmap.mmap(-1, size_bytes)
    memory = torch.frombuffer(pages, dtype=torch.uint8)
    cudart = torch.cuda.cudart()  # type: ignore[no-untyped-call]  # initializes CUDA
    status = int(cudart.cudaHostRegister(memory.data_ptr(), size_bytes, PORTABLE))
    if status == 0:
        weakref.finalize(pages, _unlock, memory.data_ptr(), device).atexit = False
    else:
        forget_error(device)
        warnings.warn(
            f"{size_bytes} bytes cannot be page-locked (CUDA error {status}): copies will make the worker wait",
            stacklevel=2,
        )
    return memory


def _unlock(address: int, device: torch.device) -> None:
    torch.cuda.synchronize(device)  # the last copy may still be under way
    torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]


def forget_error(device: torch.device) -> None:
    """CUDA reports a call that it has refused once more, at the next launch, which would be somebody else's."""
    try:
        torch.zeros(1, device=device)
    except RuntimeError:
        return
