"""Models of real shape with random weights, and the sizes at which they are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from windowkv_service.kv.layout import KVLayout

ROPE = {"rope_type": "default", "rope_theta": 500_000.0}


@dataclass(frozen=True)
class Shape:
    """config: makes the transformers configuration. long_document: whether 128k tokens are measured too."""

    name: str
    config: Callable[[], Any]
    long_document: bool


@dataclass(frozen=True)
class Sizes:
    """Tokens, sequences and ratios of the measurements."""

    dtype: torch.dtype = torch.bfloat16
    window_size: int = 16
    group_size: int = 8
    document: int = 32_768
    long_document: int = 131_072
    question: int = 32
    chunk: int = 4096
    batch: int = 64
    kept_ratio: float = 0.12
    tail: int = 256
    steps: int = 16  # of transformers' generate


REAL = Sizes()
TINY = Sizes(torch.float32, 4, 1, 96, 160, 8, 32, 4, 0.3, 64, 4)

LLAMA = Shape(
    "Llama-3.1-8B",
    lambda: LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=132_096,
        rope_parameters=ROPE,
        tie_word_embeddings=False,
    ),
    long_document=True,
)
QWEN = Shape(
    "Qwen2.5-7B",
    lambda: Qwen2Config(
        vocab_size=152_064,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=132_096,
        rope_parameters=ROPE,
        tie_word_embeddings=False,
    ),
    long_document=False,
)
MINIATURE = Shape(
    "miniature",
    lambda: LlamaConfig(
        vocab_size=260,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_parameters=ROPE,
        initializer_range=0.2,
        tie_word_embeddings=False,
    ),
    long_document=True,
)


def build(shape: Shape, sizes: Sizes, device: torch.device) -> nn.Module:
    """The module with random weights, made where it will run."""
    torch.manual_seed(0)
    with torch.device(device):
        module = AutoModelForCausalLM.from_config(shape.config(), dtype=sizes.dtype)
    return module.to(device=device, dtype=sizes.dtype).eval()


def layout_of(config: Any, sizes: Sizes) -> KVLayout:
    return KVLayout.plan(
        range(config.num_hidden_layers),
        [None] * config.num_hidden_layers,
        group_size=sizes.group_size,
        window_size=sizes.window_size,
        num_kv_heads=config.num_key_value_heads,
        head_dim=config.hidden_size // config.num_attention_heads,
        itemsize=sizes.dtype.itemsize,
    )


def weight_bytes(module: nn.Module) -> int:
    """What a decode step reads of the weights: all but the input embedding, of which it reads a row per sequence."""
    embedding = module.get_input_embeddings().weight  # type: ignore[operator]
    return sum(p.numel() * p.element_size() for p in module.parameters() if p is not embedding)
