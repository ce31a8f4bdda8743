"""A model that walks chains which a document states in pairs: name, and in other letters the name that comes next.

Two layers, set by hand: the first writes into every token which one came just before it, the second looks for the token
that was preceded by the one at hand, and says the name that it stands for. So what answers each step is one place of
the prompt, and which place is known only when the step before has been said.
"""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import torch
from tiny_models import VOCAB_SIZE, byte_tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

CONTENT = 64  # numbers that tell tokens apart
HEAD = 2 * CONTENT
HIDDEN = 3 * CONTENT + 1  # what it is, what was before it, what is to be said; the last is 1 for all
PLACE = 8  # the fastest rotations: they tell neighbours apart
SLOW = slice(CONTENT // 2, CONTENT)  # pairs of numbers that hardly turn over a few hundred positions
NAMES = range(50)
OTHER_LETTERS = 50  # further on, the same name as the second of a pair
FILLER = range(100, 250)


def save_chain_model(directory: Path) -> Path:
    """With a profile that lets the second layer lead, and a tokenizer of bytes."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=HIDDEN,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=HEAD,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=False,
        pad_token_id=256,
        bos_token_id=257,
        eos_token_id=258,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        _set_weights(model)
    model.save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    profile = {"format": 1, "leaders": [{"layer": 1, "leads": [0, 1]}], "index_bits": 4, "vote_tokens": 1}
    profile |= {"top_p": None, "keep_first": True, "keep_last_windows": 1}
    (directory / "windowkv_profile.json").write_text(json.dumps(profile))
    return directory


def document(chain: list[int], num_tokens: int, seed: int) -> list[int]:
    """Every step of the chain stated once, as two tokens next to each other at an even place, in filler."""
    draw = random.Random(seed)
    ids = [draw.choice(FILLER) for _ in range(num_tokens)]
    places = draw.sample(range(10, num_tokens // 2 - 10), len(chain) - 1)
    for place, step in zip(places, pairwise(chain), strict=True):
        ids[2 * place : 2 * place + 2] = [step[0], step[1] + OTHER_LETTERS]
    return ids


def _set_weights(model: LlamaForCausalLM) -> None:
    tokens = torch.nn.functional.normalize(torch.randn(VOCAB_SIZE, CONTENT), dim=1)
    for parameter in model.parameters():
        parameter.zero_()
    for norm in (*(n for layer in model.model.layers for n in _norms(layer)), model.model.norm):
        norm.weight.fill_(1.0)
    model.model.embed_tokens.weight[:, :CONTENT] = tokens
    model.model.embed_tokens.weight[:, -1] = 1.0
    model.lm_head.weight[: len(NAMES), 2 * CONTENT : 3 * CONTENT] = tokens[[n + OTHER_LETTERS for n in NAMES]]
    before, find = (layer.self_attn for layer in model.model.layers)
    _look_back(before, model.model.rotary_emb.inv_freq)
    _find(find)


def _norms(layer: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    return layer.input_layernorm, layer.post_attention_layernorm  # type: ignore[return-value]


def _look_back(attention: torch.nn.Module, frequencies: Tensor) -> None:
    """Attends one token back, whatever is there, and writes what it was."""
    angles = frequencies[:PLACE]
    attention.q_proj.weight[:PLACE, -1] = 8 * torch.cos(angles)
    attention.q_proj.weight[CONTENT : CONTENT + PLACE, -1] = -8 * torch.sin(angles)
    attention.k_proj.weight[:PLACE, -1] = 8.0
    attention.v_proj.weight[:CONTENT, :CONTENT] = torch.eye(CONTENT)
    attention.o_proj.weight[CONTENT : 2 * CONTENT, :CONTENT] = torch.eye(CONTENT)


def _find(attention: torch.nn.Module) -> None:
    """What I am is looked for among what was before the others; what is there is to be said."""
    half = CONTENT // 2
    for first in (SLOW.start, CONTENT + SLOW.start):
        part = 0 if first == SLOW.start else half
        attention.q_proj.weight[first : first + half, part : part + half] = 6 * torch.eye(half)
        taken = slice(CONTENT + part, CONTENT + part + half)
        attention.k_proj.weight[first : first + half, taken] = 6 * torch.eye(half)
    attention.v_proj.weight[:CONTENT, :CONTENT] = torch.eye(CONTENT)
    attention.o_proj.weight[2 * CONTENT : 3 * CONTENT, :CONTENT] = torch.eye(CONTENT)
