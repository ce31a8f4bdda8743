"""Kernels compiled for a GPU that is not there: what they take of it, and what they are made of."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from windowkv_kernels.ops._launch import Launch

# Shared memory that one program may have, in bytes, by compute capability (CUDA C++ programming guide, table
# "technical specifications").
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}
_TENSOR_CORE = re.compile(r"\b(wgmma\.mma_async|mma\.sync)\b")
_TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.uint8: "u8",
    torch.bool: "u1",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
}


@dataclass(frozen=True)
class Compiled:
    """registers and spill_bytes are per thread; None where cuobjdump is not there to tell.

    tensor_core: the instruction that multiplies tiles, or "". has_async_copies: loads run ahead (cp.async).
    """

    kernel: str
    capability: int
    num_warps: int
    shared_bytes: int
    registers: int | None
    spill_bytes: int | None
    tensor_core: str
    has_async_copies: bool


def compile_ahead(launch: Launch, capability: int) -> Compiled:
    """What a launch compiles to on a GPU of compute capability 80, 90, …; its tensors may be on the meta device."""
    signature, constants, attributes = specialize(launch)
    compiled = triton.compile(
        ASTSource(launch.kernel, signature, constants, attributes),
        target=GPUTarget("cuda", capability, 32),
        options=launch.options,
    )
    ptx = compiled.asm["ptx"]
    found = _TENSOR_CORE.search(ptx)
    registers, spill_bytes = _resources(compiled.asm["cubin"])
    return Compiled(
        kernel=launch.kernel.__name__.lstrip("_"),
        capability=capability,
        num_warps=launch.num_warps,
        shared_bytes=compiled.metadata.shared,
        registers=registers,
        spill_bytes=spill_bytes,
        tensor_core=found.group(1) if found else "",
        has_async_copies="cp.async" in ptx,
    )


def specialize(launch: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int, ...], Any]]:
    """Signature, constants and alignment as Triton derives them from the arguments of a call: None and 1 are compiled
    in, pointers and multiples of 16 are known as such."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        is_looked_at = isinstance(value, int) and not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (is_looked_at and value == 1):
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
            continue
        signature[parameter.name] = _type_of(value)
        if _is_multiple_of_16(value, parameter):
            attributes[(index,)] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def _is_multiple_of_16(value: Tensor | float | int, parameter: Any) -> bool:
    if isinstance(value, Tensor):
        return value.data_ptr() % 16 == 0 and not parameter.do_not_specialize_on_alignment
    return isinstance(value, int) and value % 16 == 0 and not parameter.do_not_specialize


def _type_of(value: Tensor | float | int) -> str:
    if isinstance(value, Tensor):
        return "*" + _TYPES[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def _resources(cubin: bytes) -> tuple[int | None, int | None]:
    """Registers and bytes of local memory per thread, from the cuobjdump that Triton carries."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        return None, None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "-res-usage", file.name]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    registers, stack = (re.search(rf"\b{name}:(\d+)", listing) for name in ("REG", "STACK"))
    return (int(registers.group(1)) if registers else None), (int(stack.group(1)) if stack else None)
