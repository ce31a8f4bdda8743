"""Small models with grouped heads, on disk as both environments of the comparison can read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from windowkv_service.model.loader import BUILTIN_DIRECTORY

SHAPE: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,  # the usual 0.02 makes attention flat, and any order of scores as good as another
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
RANDOM = {
    "llama, 8 heads on 2": (LlamaForCausalLM, LlamaConfig, {**SHAPE, "num_key_value_heads": 2}),
    "llama, 8 heads on 1": (LlamaForCausalLM, LlamaConfig, {**SHAPE, "num_key_value_heads": 1}),
    "qwen3, 8 heads on 4": (Qwen3ForCausalLM, Qwen3Config, {**SHAPE, "num_key_value_heads": 4}),
}
BUILTIN_NAME = "built-in model"


def save_models(folder: Path) -> dict[str, Path]:
    """By name, each with a tokenizer of bytes: kvpress's KVzip asks for one."""
    paths = {}
    for number, (name, (kind, config, shape)) in enumerate(RANDOM.items()):
        torch.manual_seed(number)
        paths[name] = _save(kind(config(**shape)), folder / f"random-{number}")
    trained = AutoModelForCausalLM.from_pretrained(BUILTIN_DIRECTORY, dtype=torch.float32)
    paths[BUILTIN_NAME] = _save(trained, folder / "builtin")
    return paths


def _save(module: Any, path: Path) -> Path:
    module.save_pretrained(path)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: id for id, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(path)
    return path
