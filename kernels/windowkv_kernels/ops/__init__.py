"""Triton twins of the operations, for tensors on an NVIDIA GPU. Nothing else imports triton.

Each module has its launcher, `plan` (what will be launched, without launching) and the jit body. Modules with a leading
underscore hold what several operations share.
"""

from windowkv_kernels.ops.append_kv import append_kv
from windowkv_kernels.ops.decode_attention import decode_attention
from windowkv_kernels.ops.dequantize_blocks import dequantize_blocks
from windowkv_kernels.ops.gather_windows import gather_windows
from windowkv_kernels.ops.quantize_blocks import quantize_blocks
from windowkv_kernels.ops.quantize_keys import dequantize_keys, quantize_keys
from windowkv_kernels.ops.scatter_windows import scatter_windows
from windowkv_kernels.ops.score_leader_keys import score_leader_keys
from windowkv_kernels.ops.score_windows import score_windows
from windowkv_kernels.ops.select_windows import select_windows
from windowkv_kernels.ops.shared_prefix_decode import shared_prefix_decode

__all__ = [
    "append_kv",
    "decode_attention",
    "dequantize_blocks",
    "dequantize_keys",
    "gather_windows",
    "quantize_blocks",
    "quantize_keys",
    "scatter_windows",
    "score_leader_keys",
    "score_windows",
    "select_windows",
    "shared_prefix_decode",
]
