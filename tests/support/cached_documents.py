"""Documents that tiny random models have read, for the experiments outside the engine."""

from __future__ import annotations

from pathlib import Path

import torch
from offline.document import CachedDocument
from tiny_models import save_tiny_model

from windowkv_service.model.builtin.tokenizer import build_tokenizer
from windowkv_service.model.builtin.train import build_model
from windowkv_service.model.loader import LoadedModel, ModelOptions, load

NUM_TOKENS = 150  # nine windows of 16 and a short one


def tiny_model(directory: Path, architecture: str = "llama") -> LoadedModel:
    return load(ModelOptions(str(save_tiny_model(directory, architecture)), "cpu", "float32", 16, 1))


def untrained_builtin(directory: Path) -> LoadedModel:
    """The built-in model's tokenizer and circuits without its training: generated documents are read word by word."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(8192)
    build_model(tokenizer, hidden=128, layers=4, heads=8).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return load(ModelOptions(str(directory), "cpu", "float32", 16, None))


def random_ids(count: int, seed: int) -> list[int]:
    return torch.randint(20, 250, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def cached_document(model: LoadedModel, num_tokens: int = NUM_TOKENS) -> CachedDocument:
    return CachedDocument(model, random_ids(num_tokens, 1))
