"""windowkv size counts from a config.json what the service counts from its layout."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from tiny_models import ARCHITECTURES, save_tiny_model

from windowkv_client import Codec
from windowkv_client.cli._kv_size import FRAME_HEADER_BYTES, kv_size, read_shape
from windowkv_service.cache.frame import HEADER_BYTES
from windowkv_service.domain import codec as codecs
from windowkv_service.kv.packing import Packing
from windowkv_service.model.loader import ModelOptions, load

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
}


def write(folder: Path, config: object) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("tokens", [1, 16, 61, 300])
def test_it_agrees_with_the_service(architecture: str, tokens: int, tmp_path: Path) -> None:
    save_tiny_model(tmp_path, architecture)
    layout = load(ModelOptions(str(tmp_path), "cpu", "float32", 16, None)).layout
    shape = read_shape(tmp_path)
    sizes = kv_size(shape, tokens=tokens, batch=3, kept_ratio=0.25, window_size=16)
    assert sizes.bytes_per_token == layout.bytes_per_token
    assert sizes.full_bytes == 3 * layout.full_bytes(tokens)
    assert sizes.device_bytes <= 0.25 * sizes.full_bytes
    assert shape.num_groups == len(layout.groups)
    blocks = sum(HEADER_BYTES + layout.block_bytes(group) for group in layout.groups)
    assert sizes.lower_tier_bytes == 3 * ceil(tokens / 16) * blocks


@pytest.mark.parametrize("codec", Codec)
def test_it_agrees_with_the_service_below_the_device(codec: Codec, tmp_path: Path) -> None:
    save_tiny_model(tmp_path, "gemma3")
    layout = load(ModelOptions(str(tmp_path), "cpu", "float32", 16, None)).layout
    packing = Packing(codecs.Codec(codec))
    sizes = [packing.size_bytes(layout.block_shape(group), layout.itemsize) for group in layout.groups]
    shape = read_shape(tmp_path)
    size = kv_size(shape, tokens=300, batch=1, kept_ratio=0.25, window_size=16, codec=codec)
    assert size.lower_tier_bytes == 19 * (sum(sizes) + HEADER_BYTES * len(sizes))


def test_a_frames_header_is_as_long_as_the_cache_writes_it() -> None:
    assert FRAME_HEADER_BYTES == HEADER_BYTES


def test_a_known_model(tmp_path: Path) -> None:
    sizes = kv_size(
        read_shape(write(tmp_path, LLAMA_3_8B)), tokens=128_000, batch=1, kept_ratio=0.12, window_size=32
    )
    assert sizes.bytes_per_token == 131_072
    assert sizes.full_bytes == 128_000 * 131_072


@pytest.mark.parametrize(
    ("more", "windows"),
    [
        ({}, [None] * 4),
        ({"sliding_window": 64}, [64] * 4),
        ({"sliding_window": 64, "use_sliding_window": False}, [None] * 4),
        ({"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 2}, [None, None, 64, 64]),
        ({"sliding_window": 64, "sliding_window_pattern": 2}, [64, None, 64, None]),
        ({"sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"] * 2}, [None, 64] * 2),
        ({"num_kv_shared_layers": 1}, [None] * 3),
    ],
    ids=str,
)
def test_layers_are_told_apart(tmp_path: Path, more: dict[str, Any], windows: list[int | None]) -> None:
    config = {**LLAMA_3_8B, "num_hidden_layers": 4, **more}
    assert list(read_shape(write(tmp_path, config)).sliding_windows) == windows


def test_a_sliding_layer_needs_no_more_than_its_window(tmp_path: Path) -> None:
    shape = read_shape(write(tmp_path, {**LLAMA_3_8B, "num_hidden_layers": 4, "sliding_window": 64}))
    assert (
        kv_size(shape, tokens=1000, batch=2, kept_ratio=1, window_size=16).needed_bytes == 2 * 64 * 4 * 4096
    )


def test_the_text_part_of_a_larger_model_is_what_counts(tmp_path: Path) -> None:
    shape = read_shape(
        write(tmp_path, {"architectures": ["Many"], "text_config": {**LLAMA_3_8B, "head_dim": 64}})
    )
    assert (shape.architecture, shape.head_dim, shape.num_layers) == ("Many", 64, 32)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ([], "config.json"),
        ({"hidden_size": 5}, "num_attention_heads"),
        ({**LLAMA_3_8B, "kv_lora_rank": 512}, "latent"),
        ({**LLAMA_3_8B, "torch_dtype": "int3"}, "dtype"),
    ],
)
def test_what_cannot_be_counted_is_told(tmp_path: Path, config: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_shape(write(tmp_path, config))


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"batch": 0}, {"kept_ratio": 0.0}, {"kept_ratio": 1.1}])
def test_absurd_numbers_are_refused(tmp_path: Path, wrong: dict[str, float]) -> None:
    asked: dict[str, Any] = {"tokens": 10, "batch": 1, "kept_ratio": 0.5, "window_size": 16, **wrong}
    with pytest.raises(ValueError, match="must be"):
        kv_size(read_shape(write(tmp_path, LLAMA_3_8B)), **asked)
