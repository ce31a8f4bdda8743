"""What is refused at start, with its reason, and what the digest that names all KV depends on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model
from transformers import GPT2Config, GPT2LMHeadModel

from windowkv_service.errors import UnsupportedModel
from windowkv_service.model.loader import LoadedModel, ModelOptions, load

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("saved"), "llama")


@pytest.fixture
def directory(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    return copy


def load_from(directory: Path, **options: Any) -> LoadedModel:
    given: dict[str, Any] = {"device": "cpu", "dtype": "float32", "window_size": 8, "group_size": None}
    return load(ModelOptions(str(directory), **{**given, **options}))


def edit_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(directory: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = directory / "model.safetensors"
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


def refusal(directory: Path) -> str:
    with pytest.raises(UnsupportedModel) as error:
        load_from(directory)
    return str(error.value)


# Refusals


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "holds no config.json" in refusal(tmp_path / "nowhere")


def test_a_configuration_that_is_none_is_refused(directory: Path) -> None:
    (directory / "config.json").write_text("{")
    assert "config.json" in refusal(directory)


def test_an_unknown_architecture_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    config = GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=10, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    said = refusal(tmp_path)
    assert "'gpt2'" in said
    assert "llama" in said


def test_layers_without_a_cache_that_can_be_paged_are_refused(tmp_path: Path) -> None:
    directory = save_tiny_model(tmp_path, "qwen3")
    kinds = ["full_attention", "linear_attention", "full_attention", "full_attention"]
    edit_config(directory, layer_types=kinds)
    assert "linear_attention" in refusal(directory)


def test_bidirectional_attention_is_refused(tmp_path: Path) -> None:
    directory = save_tiny_model(tmp_path, "gemma3")
    edit_config(directory, use_bidirectional_attention=True)
    assert "bidirectional" in refusal(directory)


def test_a_model_without_a_tokenizer_is_refused(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()
    assert "tokenizer" in refusal(directory)


def test_a_model_without_weights_is_refused(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    assert "weights" in refusal(directory)


def test_pickled_weights_are_not_weights(directory: Path) -> None:
    """The digest does not cover them, and reading them would run what they say."""
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    assert "weights" in refusal(directory)


def test_a_truncated_file_of_weights_is_refused(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "weights" in refusal(directory)


def test_weights_that_are_missing_are_refused_and_not_made_up(directory: Path) -> None:
    name = "model.layers.2.mlp.down_proj.weight"
    edit_weights(directory, lambda weights: weights.__delitem__(name))
    assert name in refusal(directory)


# What is found out


def test_the_layout_follows_the_model_and_the_options(directory: Path) -> None:
    layout = load_from(directory, window_size=16, group_size=2).layout
    assert [group.layers for group in layout.groups] == [(0, 1), (2, 3)]
    assert (layout.window_size, layout.num_kv_heads, layout.head_dim, layout.itemsize) == (16, 2, 16, 4)


def test_end_of_sequence_tokens_come_from_the_generation_configuration(directory: Path) -> None:
    assert load_from(directory).eos_ids == {258}
    path = directory / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [3, 258]}))
    assert load_from(directory).eos_ids == {3, 258}


def test_a_rotation_that_changes_with_length_limits_the_length(directory: Path) -> None:
    assert load_from(directory).max_tokens == 512
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    edit_config(directory, rope_parameters={**rope, "original_max_position_embeddings": 256})
    assert load_from(directory).max_tokens == 256


# The digest


def test_the_digest_is_the_same_wherever_the_model_lies(saved: Path, directory: Path) -> None:
    assert load_from(directory).digest == load_from(saved).digest


def _one_weight(directory: Path) -> None:
    def nudge(weights: dict[str, torch.Tensor]) -> None:
        weights["model.layers.0.self_attn.k_proj.weight"][0, 0] += 1e-3

    edit_weights(directory, nudge)


SLOWER = {"rope_type": "default", "rope_theta": 5000.0}
CHANGES: dict[str, tuple[Change, dict[str, Any]]] = {
    "one weight": (_one_weight, {}),
    "the rotation": (lambda directory: edit_config(directory, rope_parameters=SLOWER), {}),
    "a norm's epsilon": (lambda directory: edit_config(directory, rms_norm_eps=1e-3), {}),
    "the dtype": (lambda directory: None, {"dtype": "bfloat16"}),
    "the window size": (lambda directory: None, {"window_size": 16}),
    "the group size": (lambda directory: None, {"group_size": 2}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_changes_with_all_that_changes_the_bytes(
    saved: Path, directory: Path, change: str
) -> None:
    spoil, options = CHANGES[change]
    spoil(directory)
    assert load_from(directory, **options).digest != load_from(saved).digest
