"""Starts a Llama with the two circuits a lookup is made of, instead of waiting for chance to find them.

A model of this size answers "what follows Marlow?" with two layers: the first writes into every token which tokens
came just before it, a later one searches for the token that was preceded by what is asked for, and copies it. From
independent random weights every short trial sat on the plateau of guessing among the document's answers, because
neither circuit pays before the other exists. From this start it leaves the plateau within a hundred steps. All weights
are trained afterwards; the architecture stays a stock Llama.
"""

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

OFFSETS = (1, 2, 3, 4)  # how far back each head of the first layer looks
LOOKUP_LAYERS = (1, 2)
_POSITION_FREQUENCIES = 3  # the fastest rotations tell neighbours apart
_BLURRED_FREQUENCIES = 6  # rotations too fast for matching contents far apart
_POSITION_SHARPNESS = 16.0  # logit of the head's own offset
_MATCH_SHARPNESS = 12.0  # logit of a perfect match of contents
_REST = 0.05  # scale of what is left of the random weights around the circuits


@torch.no_grad()
def start_with_lookup(model: LlamaForCausalLM) -> None:
    """Overwrites the fresh weights of `model` (at least 3 layers, 4 heads) in place; uses torch's global generator."""
    hidden = model.config.hidden_size
    embeddings = model.model.embed_tokens.weight
    scale = embeddings.std().item()
    # What all tokens share, so that a query can be made of the position alone.
    shared = torch.sign(torch.randn(hidden))
    embeddings.add_(shared * scale)
    # Orthonormal directions away from the shared one; [hidden - 1, hidden].
    contents = torch.linalg.qr(torch.cat([shared[:, None], torch.randn(hidden, hidden - 1)], dim=1))[0].T[1:]
    turn = torch.linalg.qr(torch.randn(hidden, hidden))[0]  # tells "preceded by x" from "is x"
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.mul_(_REST)
        layer.self_attn.o_proj.weight.mul_(_REST)
    _look_back(model, shared, contents, turn, scale)
    for index in LOOKUP_LAYERS:
        _search_and_copy(model, index, contents, turn, scale)


def _look_back(model: LlamaForCausalLM, shared: Tensor, contents: Tensor, turn: Tensor, scale: float) -> None:
    """The first layer: head i attends OFFSETS[i] tokens back and writes what it finds there, turned."""
    attention = model.model.layers[0].self_attn
    size, group = attention.head_dim, attention.num_key_value_groups
    used = _POSITION_FREQUENCIES
    angles = model.model.rotary_emb.inv_freq[:used]
    gain = (_POSITION_SHARPNESS * size**0.5 / (used / 2)) ** 0.5 / model.config.hidden_size
    key = torch.zeros(size)
    key[:used] = 1.0
    attention.k_proj.weight.mul_(_REST)
    attention.q_proj.weight.mul_(_REST)
    for head in range(model.config.num_attention_heads):
        offset = OFFSETS[head % len(OFFSETS)]
        query = torch.zeros(size)
        query[:used] = torch.cos(offset * angles)
        query[size // 2 : size // 2 + used] = -torch.sin(offset * angles)
        kv_head = head // group
        subspace = contents[:size]
        attention.q_proj.weight[_rows(head, size)] += gain * query[:, None] * shared
        if head % group == 0:
            attention.k_proj.weight[_rows(kv_head, size)] += gain * key[:, None] * shared
            attention.v_proj.weight[_rows(kv_head, size)] = subspace
        attention.o_proj.weight[:, _rows(head, size)] = 2 * scale * (turn @ subspace.T)


def _search_and_copy(
    model: LlamaForCausalLM, index: int, contents: Tensor, turn: Tensor, scale: float
) -> None:
    """A lookup layer: keys are the contents of a token's predecessors, what is found is copied.

    Queries of the first KV head are a token's own contents ("what follows me?"), those of the others its predecessors'
    ("what follows the name that was just asked for?").
    """
    attention = model.model.layers[index].self_attn
    size, group = attention.head_dim, attention.num_key_value_groups
    slow = torch.ones(size)
    slow[:_BLURRED_FREQUENCIES] = 0.0
    slow[size // 2 : size // 2 + _BLURRED_FREQUENCIES] = 0.0
    gain = (_MATCH_SHARPNESS / size**0.5) ** 0.5
    num_kv_heads = model.config.num_key_value_heads
    own, preceding = contents[:size], contents[:size] @ turn.T
    for kv_head in range(num_kv_heads):
        part = (LOOKUP_LAYERS.index(index) * num_kv_heads + kv_head) * size % (len(contents) - size)
        copied = contents[part : part + size]
        attention.k_proj.weight[_rows(kv_head, size)] = gain * slow[:, None] * preceding
        attention.v_proj.weight[_rows(kv_head, size)] = copied
        for head in range(kv_head * group, (kv_head + 1) * group):
            searched = own if kv_head == 0 else preceding
            attention.q_proj.weight[_rows(head, size)] = gain * slow[:, None] * searched
            attention.o_proj.weight[:, _rows(head, size)] = 2 * scale * copied.T


def _rows(head: int, size: int) -> slice:
    return slice(head * size, (head + 1) * size)
