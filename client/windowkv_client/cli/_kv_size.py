"""How large a model's KV cache is, from its config.json alone.

    bytes per token = layers that own KV × 2 (K and V) × KV heads × head size × bytes per number
    full            = tokens × bytes per token × batch
    on the device   ≤ kept ratio × full                       everything counted: blocks, leader keys
    in a lower tier = windows × (window × bytes per token + 128 per layer group) × batch
                      of a codec with b bits and s numbers per scale (2 at int4, else 1), for each layer of a window
                      KV heads × (2 × window × head size × b / 8 + 2 bytes × s × (head size + 2 × window))

Grouped-query attention is in "KV heads", layers that read another layer's KV are in "layers that own KV". A layer
with a sliding window needs no more than its window on the device, yet its whole KV is counted as full.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from windowkv_client._models import Codec

FRAME_HEADER_BYTES = 128  # before each block in a lower tier
DTYPE_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "int8": 1}
CODE_BITS = {Codec.INT8: 8, Codec.FP8: 8, Codec.INT4: 4}
SCALE_BYTES = 2
FULL, SLIDING = "full_attention", "sliding_attention"
GROUP_SIZE_LIMIT = 8


@dataclass(frozen=True)
class KVShape:
    """What of a model decides its KV cache's size; sliding_windows has one entry per layer that owns KV."""

    architecture: str
    num_layers: int
    sliding_windows: tuple[int | None, ...]
    num_kv_heads: int
    head_dim: int
    dtype: str

    @property
    def layer_bytes(self) -> int:
        """K and V of one token in one layer."""
        return 2 * self.num_kv_heads * self.head_dim * DTYPE_BYTES[self.dtype]

    @property
    def bytes_per_token(self) -> int:
        return len(self.sliding_windows) * self.layer_bytes

    def window_bytes(self, window_size: int, codec: Codec) -> int:
        """K and V of a whole window in all layers, as they lie below the device."""
        if codec is Codec.EXACT:
            return window_size * self.bytes_per_token
        codes = 2 * window_size * self.head_dim * CODE_BITS[codec] // 8
        num_scales = (2 if codec is Codec.INT4 else 1) * (self.head_dim + 2 * window_size)
        return len(self.sliding_windows) * self.num_kv_heads * (codes + SCALE_BYTES * num_scales)

    @property
    def num_groups(self) -> int:
        """Storage groups: a quarter of the layers each, at most 8, full and sliding layers apart."""
        group_size = max(1, min(GROUP_SIZE_LIMIT, self.num_layers // 4))
        kinds = set(self.sliding_windows)
        return sum(ceil(self.sliding_windows.count(kind) / group_size) for kind in kinds)


@dataclass(frozen=True)
class KVSize:
    """Bytes for a batch of prompts of one length."""

    bytes_per_token: int
    full_bytes: int
    needed_bytes: int  # uncompressed on the device, sliding layers without what they no longer see
    device_bytes: int  # compressed, at most
    lower_tier_bytes: int  # with all windows retained, in host memory and in Redis each


def kv_size(
    shape: KVShape,
    *,
    tokens: int,
    batch: int,
    kept_ratio: float,
    window_size: int,
    codec: Codec = Codec.EXACT,
) -> KVSize:
    """Raises ValueError for what cannot be cached."""
    if tokens < 1 or batch < 1 or window_size < 1:
        raise ValueError("tokens, batch and window size must be at least 1")
    if not 0.0 < kept_ratio <= 1.0:
        raise ValueError(f"kept ratio must be in (0, 1], not {kept_ratio}")
    full = tokens * shape.bytes_per_token
    seen = sum(tokens if sliding is None else min(tokens, sliding) for sliding in shape.sliding_windows)
    windows = ceil(tokens / window_size)
    frames = windows * (shape.window_bytes(window_size, codec) + FRAME_HEADER_BYTES * shape.num_groups)
    return KVSize(
        bytes_per_token=shape.bytes_per_token,
        full_bytes=batch * full,
        needed_bytes=batch * seen * shape.layer_bytes,
        device_bytes=batch * int(full * kept_ratio),
        lower_tier_bytes=batch * frames,
    )


def read_shape(path: Path, dtype: str | None = None) -> KVShape:
    """From a config.json, or the directory that holds it. Raises OSError, or ValueError with what is wrong."""
    file = path / "config.json" if path.is_dir() else path
    config = json.loads(file.read_text())
    if not isinstance(config, dict):
        raise ValueError(f"{file} is not a model's config.json")
    text = config.get("text_config") or config
    if "kv_lora_rank" in text:
        raise ValueError("a model with latent attention has no K and V to count by this formula")
    try:
        return _shape(config, text, dtype)
    except KeyError as error:
        raise ValueError(f"{file} does not say {error}") from None


def _shape(config: Mapping[str, Any], text: Mapping[str, Any], dtype: str | None) -> KVShape:
    num_heads = int(text["num_attention_heads"])
    stored = text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    dtype = dtype or stored or "float32"
    if dtype not in DTYPE_BYTES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPE_BYTES)}")
    return KVShape(
        architecture=next(iter(config.get("architectures") or ()), str(config.get("model_type", "unknown"))),
        num_layers=int(text["num_hidden_layers"]),
        sliding_windows=_owning_windows(text),
        num_kv_heads=int(text.get("num_key_value_heads") or num_heads),
        head_dim=int(text.get("head_dim") or text["hidden_size"] // num_heads),
        dtype=dtype,
    )


def _owning_windows(text: Mapping[str, Any]) -> tuple[int | None, ...]:
    """The sliding window, or None, of each layer that owns KV; the last layers of some models read another's."""
    kinds = _layer_kinds(text)
    owning = len(kinds) - int(text.get("num_kv_shared_layers") or 0)
    return tuple(int(text["sliding_window"]) if kind == SLIDING else None for kind in kinds[:owning])


def _layer_kinds(text: Mapping[str, Any]) -> list[str]:
    num_layers = int(text["num_hidden_layers"])
    if kinds := text.get("layer_types"):
        return list(kinds)
    if not text.get("sliding_window") or text.get("use_sliding_window") is False:
        return [FULL] * num_layers
    if "max_window_layers" in text:  # Qwen: the first layers see everything
        return [FULL if layer < text["max_window_layers"] else SLIDING for layer in range(num_layers)]
    if pattern := text.get("sliding_window_pattern"):  # Gemma: one in so many layers sees everything
        return [SLIDING if (layer + 1) % pattern else FULL for layer in range(num_layers)]
    return [SLIDING] * num_layers
