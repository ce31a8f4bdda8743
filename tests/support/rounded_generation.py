"""What a plain model answers whose KV cache was rounded: the reference of caches that are quantized below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from windowkv_kernels import BlockCodec, reference


def rounded_generate(
    directory: Path,
    prompt_ids: Sequence[int],
    new_ids: Sequence[int],
    max_tokens: int,
    *,
    codec: BlockCodec,
    window_size: int,
) -> list[int]:
    """transformers' own cache of the prompt, every window of every layer rounded; then, greedily, the answer."""
    model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa").eval()
    cache = DynamicCache()
    with torch.inference_mode():
        model(torch.tensor([list(prompt_ids)]), past_key_values=cache)
        for layer in cache.layers:
            layer.keys, layer.values = _rounded(layer.keys, layer.values, codec, window_size)
        said: list[int] = []
        ids = list(new_ids)
        for _ in range(max_tokens):
            logits = model(torch.tensor([ids]), past_key_values=cache).logits
            ids = [int(logits[0, -1].argmax())]
            said += ids
    return said


def _rounded(keys: Tensor, values: Tensor, codec: BlockCodec, window_size: int) -> tuple[Tensor, Tensor]:
    """Of [1, num_kv_heads, n, head_dim] each: cut into blocks of one layer, the last one filled up with zeros."""
    _, num_kv_heads, num_tokens, head_dim = keys.shape
    num_windows = -(-num_tokens // window_size)
    both = torch.zeros(2, num_windows * window_size, num_kv_heads, head_dim, dtype=keys.dtype)
    both[:, :num_tokens] = torch.cat([keys, values]).transpose(1, 2)
    blocks = both.unflatten(1, (num_windows, window_size)).transpose(0, 1)[:, None].contiguous()
    ids = torch.arange(num_windows)
    reference.dequantize_blocks(reference.quantize_blocks(blocks, ids, codec), blocks, ids)
    rounded = blocks[:, 0].transpose(0, 1).flatten(1, 2)[:, :num_tokens].transpose(1, 2)
    return rounded[:1], rounded[1:]
