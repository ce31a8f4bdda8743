"""Plain torch twins of the operations, written to be read. They run on every device and judge the others."""

from windowkv_kernels.reference.append_kv import append_kv
from windowkv_kernels.reference.decode_attention import decode_attention
from windowkv_kernels.reference.dequantize_blocks import dequantize_blocks
from windowkv_kernels.reference.gather_windows import gather_windows
from windowkv_kernels.reference.quantize_blocks import quantize_blocks
from windowkv_kernels.reference.quantize_keys import dequantize_keys, quantize_keys
from windowkv_kernels.reference.scatter_windows import scatter_windows
from windowkv_kernels.reference.score_leader_keys import score_leader_keys
from windowkv_kernels.reference.score_windows import score_windows
from windowkv_kernels.reference.select_windows import select_windows
from windowkv_kernels.reference.shared_prefix_decode import shared_prefix_decode

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
