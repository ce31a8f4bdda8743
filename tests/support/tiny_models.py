"""Tiny random models of every supported architecture, saved to disk with a tokenizer, as a user's would
be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB_SIZE = 260
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # the default is so small that the context would hardly matter
    "pad_token_id": 256,
    "bos_token_id": 257,
    "eos_token_id": 258,
}
GEMMA: dict[str, Any] = {**SHAPE, "head_dim": 16, "sliding_window": 24}
MIXED_LAYERS = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]

ARCHITECTURES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaForCausalLM, LlamaConfig, SHAPE),
    "mistral": (MistralForCausalLM, MistralConfig, {**SHAPE, "sliding_window": None}),
    "mistral_sliding": (MistralForCausalLM, MistralConfig, {**SHAPE, "sliding_window": 24}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, SHAPE),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {**SHAPE, "head_dim": 16}),
    "phi3": (Phi3ForCausalLM, Phi3Config, SHAPE),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, {**GEMMA, "layer_types": MIXED_LAYERS}),
    "gemma3n": (
        Gemma3nForCausalLM,
        Gemma3nTextConfig,
        {
            **GEMMA,
            "num_hidden_layers": 6,
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "vocab_size_per_layer_input": VOCAB_SIZE,
            "hidden_size_per_layer_input": 16,
            "laurel_rank": 8,
            "activation_sparsity_pattern": [0.0] * 6,
            "intermediate_size": 96,
        },
    ),
}


def save_tiny_model(directory: Path, architecture: str, seed: int = 0) -> Path:
    """A float32 model of the architecture and a byte-level tokenizer, in directory."""
    model_class, config_class, options = ARCHITECTURES[architecture]
    torch.manual_seed(seed)
    model = model_class(config_class(**options)).eval()
    model.save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, so that any text round-trips."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
        chat_template=(
            "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
            "{% if add_generation_prompt %}<assistant>{% endif %}"
        ),
    )
