"""A Hugging Face model directory → a ready module, its layout and everything else that is known of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

from windowkv_service.errors import UnsupportedModel
from windowkv_service.kv.layout import KVLayout
from windowkv_service.model.attention import ATTENTION_NAME
from windowkv_service.model.constants import hold_constants
from windowkv_service.model.tokenizer import Tokenizer

LAYOUT_VERSION = 1  # part of every content address: raise it when the bytes of a block change their meaning
BUILTIN = "builtin"
BUILTIN_DIRECTORY = Path(__file__).parent / BUILTIN


@dataclass(frozen=True)
class ModelOptions:
    """What an operator chooses about a model. group_size None: a quarter of the layers, at most 8."""

    model: str
    device: str
    dtype: str
    window_size: int
    group_size: int | None


@dataclass(frozen=True)
class LoadedModel:
    """digest covers weights, configuration, dtype and layout: everything but the tokens that determines KV bytes."""

    name: str
    directory: Path
    module: nn.Module
    tokenizer: Tokenizer
    layout: KVLayout
    scales: dict[int, float]  # layer → softmax scale
    softcap: float | None
    digest: bytes
    eos_ids: frozenset[int]
    architecture: str
    max_tokens: int
    vocab_size: int
    num_layers: int
    device: torch.device
    dtype: torch.dtype


def load(options: ModelOptions) -> LoadedModel:
    """Read the model from disk; raises UnsupportedModel, with the reason, for anything that would not be exact."""
    transformers_logging.disable_progress_bar()
    directory = BUILTIN_DIRECTORY if options.model == BUILTIN else Path(options.model)
    config = _read_config(directory)
    device = torch.device(options.device if options.device != "auto" else _best_device())
    dtype = _choose_dtype(options.dtype, config, device)
    owners, sliding_windows = plan_attention(config)
    layout = KVLayout.plan(
        owners,
        sliding_windows,
        group_size=options.group_size or max(1, min(8, config.num_hidden_layers // 4)),
        window_size=options.window_size,
        num_kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        itemsize=dtype.itemsize,
    )
    module = _load_module(directory, dtype).to(device).eval()
    module.set_attn_implementation(ATTENTION_NAME)
    hold_constants(module)
    return LoadedModel(
        name=BUILTIN if options.model == BUILTIN else directory.resolve().name,
        directory=directory,
        module=module,
        tokenizer=Tokenizer.load(directory, config.vocab_size),
        layout=layout,
        scales={
            index: float(layer.self_attn.scaling) for index, layer in enumerate(module.get_decoder().layers)
        },
        softcap=getattr(config, "attn_logit_softcapping", None),
        digest=_digest(directory, config, layout, dtype),
        eos_ids=_eos_ids(directory, config),
        architecture=type(module).__name__,
        max_tokens=_max_tokens(config),
        vocab_size=config.vocab_size,
        num_layers=config.num_hidden_layers,
        device=device,
        dtype=dtype,
    )


def _load_module(directory: Path, dtype: torch.dtype) -> Any:
    """From safetensors alone: what the digest covers is what is read, and nothing is unpickled. Weights that the files
    lack would be made up at random."""
    try:
        module, report = AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UnsupportedModel(f"{directory}: no usable weights: {error}") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        named = sorted(map(str, {*report["missing_keys"], *report["mismatched_keys"]}))
        raise UnsupportedModel(
            f"{directory}: weights are missing or of another shape: {', '.join(named[:5])}"
        )
    return module


def _read_config(directory: Path) -> Any:
    if not (directory / "config.json").is_file():
        raise UnsupportedModel(
            f"{directory} holds no config.json: a Hugging Face model directory is expected"
        )
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UnsupportedModel(f"{directory}: config.json cannot be used: {error}") from error
    if config.model_type not in _PLANS:
        known = ", ".join(sorted(_PLANS))
        raise UnsupportedModel(f"model type {config.model_type!r} is not supported; supported: {known}")
    if getattr(config, "use_bidirectional_attention", False):
        raise UnsupportedModel("a model with bidirectional attention cannot be continued from a cache")
    return config


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _choose_dtype(name: str, config: Any, device: torch.device) -> torch.dtype:
    if name != "auto":
        dtype = getattr(torch, name)
        assert isinstance(dtype, torch.dtype)
        return dtype
    stored = getattr(config, "dtype", None)
    return stored if device.type == "cuda" and isinstance(stored, torch.dtype) else torch.float32


# What each architecture's layers look at: (owners, sliding windows), one of each per layer.
Plan = tuple[list[int], list[int | None]]


def _uniform(config: Any) -> Plan:
    layers = range(config.num_hidden_layers)
    return list(layers), [getattr(config, "sliding_window", None) for _ in layers]


def _by_layer_type(config: Any) -> Plan:
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    if unknown := set(kinds) - {"full_attention", "sliding_attention"}:
        raise UnsupportedModel(
            f"layers of type {', '.join(sorted(unknown))} have no KV cache that can be paged"
        )
    windows = [config.sliding_window if kind == "sliding_attention" else None for kind in kinds]
    return list(range(len(kinds))), windows


def _kv_sharing(config: Any) -> Plan:
    """The last layers own no KV: each reads that of the last owning layer of its own type."""
    owners, windows = _by_layer_type(config)
    for layer, mode in enumerate(config.kv_sharing_modes):
        if mode == "reuse":
            owners[layer] = max(
                owner
                for owner in range(layer)
                if config.kv_sharing_modes[owner] != "reuse" and windows[owner] == windows[layer]
            )
    return owners, windows


_PLANS: dict[str, Callable[[Any], Plan]] = {
    "llama": lambda config: (list(range(config.num_hidden_layers)), [None] * config.num_hidden_layers),
    "mistral": _uniform,
    "phi3": _uniform,
    "qwen2": _by_layer_type,
    "qwen3": _by_layer_type,
    "gemma3_text": _by_layer_type,
    "gemma3n_text": _kv_sharing,
}


def plan_attention(config: Any) -> Plan:
    return _PLANS[config.model_type](config)


def _max_tokens(config: Any) -> int:
    """A model whose rotation depends on the length seen so far is held to the length up to which it does not."""
    longest = int(config.max_position_embeddings)
    for rope in _rope_parameters(config):
        if rope.get("rope_type") in ("dynamic", "longrope"):
            longest = min(longest, int(rope.get("original_max_position_embeddings") or longest))
    return longest


def _rope_parameters(config: Any) -> list[dict[str, Any]]:
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    return nested or [parameters]


def _digest(directory: Path, config: Any, layout: KVLayout, dtype: torch.dtype) -> bytes:
    """xxh3 for the bulk (the operator's own files, no adversary), SHA-256 over what names it. Where the model lies is
    no part of it: all workers of a fleet give it the same digest."""
    facts = {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    groups = [(group.layers, group.sliding_window) for group in layout.groups]
    digest.update(repr((LAYOUT_VERSION, str(dtype), groups, layout.owners, layout.window_size)).encode())
    for weights in sorted(directory.glob("*.safetensors")):
        bulk = xxhash.xxh3_128()
        with weights.open("rb") as file:
            while piece := file.read(1 << 24):
                bulk.update(piece)
        digest.update(bulk.digest())
    return digest.digest()


def _eos_ids(directory: Path, config: Any) -> frozenset[int]:
    eos = getattr(config, "eos_token_id", None)
    if (directory / "generation_config.json").is_file():
        eos = GenerationConfig.from_pretrained(directory).eos_token_id or eos
    if eos is None:
        return frozenset()
    return frozenset(eos if isinstance(eos, list) else [eos])
