"""Starts a Llama with the circuits that its tasks are made of, instead of waiting for chance to find them.

A model of this size answers "what follows Marlow?" with two layers: the first writes into every token which tokens
came just before it, a later one searches for the token that was preceded by what is asked for, and copies it. From
independent random weights every short trial sat on the plateau of guessing among the document's answers, because
neither circuit pays before the other exists. What is planted:

- first layer: heads that look back one to six tokens, and one that sees the end of a question;
- layers 1 and 2: lookups; keys are a token's predecessors, queries the token itself, its predecessors or the question.

All weights are trained afterwards; the architecture stays a stock Llama.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

KEY_OFFSETS = (1, 2, 3, 5)  # how far back the first layer's first heads look; the last one sees 4 and 6 too
LOOKUP_LAYERS = (1, 2)
_POSITION_FREQUENCIES = 8  # the fastest rotations tell neighbours apart
_RECENT_FREQUENCIES = slice(4, 10)  # rotations over dozens of tokens
_BLURRED_FREQUENCIES = 10  # rotations too fast for matching contents far apart
_POSITION_SHARPNESS = 32.0  # logit of the head's own offset
_RECENT_SHARPNESS = 20.0
_MATCH_SHARPNESS = 40.0  # logit of a perfect match of undisturbed contents
_MARKER_SHARPNESS = 60.0  # of a colon, for the tokens of its answer
_REST = 0.05  # scale of what is left of the random weights around the circuits


@dataclass(frozen=True)
class _Spaces:
    """Directions of the residual stream: [rows, hidden], orthonormal within each.

    shared is in every embedding (signs, not normalised). contents spans what differs. before_at[i] and recent span
    where the first layer writes what stood before a token, at random angles to the contents.
    """

    shared: Tensor
    contents: Tensor
    before: Tensor
    second: Tensor
    recent: Tensor


@torch.no_grad()
def start_with_circuits(model: LlamaForCausalLM, colon_id: int) -> None:
    """Overwrites the fresh weights of `model` (4 layers or more, 8 query heads on 4 KV heads) in place.

    colon_id: the token that ends a question, ":". Uses torch's global generator.
    """
    hidden = model.config.hidden_size
    embeddings = model.model.embed_tokens.weight
    scale = embeddings.std().item()
    # What all tokens share, so that a query can be made of the position alone.
    shared = torch.sign(torch.randn(hidden))
    embeddings.add_(shared * scale)
    contents = torch.linalg.qr(torch.cat([shared[:, None], torch.randn(hidden, hidden - 1)], dim=1))[0].T[1:]
    turns = [torch.linalg.qr(torch.randn(hidden, hidden))[0] for _ in range(3)]
    spaces = _Spaces(shared, contents, *(contents @ turn.T for turn in turns))
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.mul_(_REST)
        layer.self_attn.o_proj.weight.mul_(_REST)
    _look_back(model, spaces, scale)
    for index in LOOKUP_LAYERS:
        _search_and_copy(model, index, spaces, scale)
    _remember_the_question(model, spaces, scale, colon_id)


def _look_back(model: LlamaForCausalLM, spaces: _Spaces, scale: float) -> None:
    """The first layer. KV heads 0 and 1: a bag of the six tokens before. 2: the last and the one before, apart.
    3: what stands at the end of a question, seen from the answer's beginning: four back, and four to seven back."""
    attention = model.model.layers[0].self_attn
    size = attention.head_dim
    attention.k_proj.weight.mul_(_REST)
    attention.q_proj.weight.mul_(_REST)
    bag, exact = slice(0, size), slice(size, 2 * size)
    plan = [
        (_at(model, 1), bag, spaces.before),
        (_at(model, 2), bag, spaces.before),
        (_at(model, 3), bag, spaces.before),
        (_around(model, 5), bag, spaces.before),
        (_at(model, 1), exact, spaces.before),
        (_at(model, 2), exact, spaces.second),
        (_at(model, 4), bag, spaces.recent),
        (_around(model, 5.5), bag, spaces.recent),
    ]
    for head, (query, part, written) in enumerate(plan):
        kv_head = head // attention.num_key_value_groups
        attention.q_proj.weight[rows_of(head, size)] += query[:, None] * spaces.shared / len(spaces.shared)
        if head % attention.num_key_value_groups == 0:
            key = torch.zeros(size)
            key[: size // 2] = 1.0
            attention.k_proj.weight[rows_of(kv_head, size)] += (
                key[:, None] * spaces.shared / len(spaces.shared)
            )
            attention.v_proj.weight[rows_of(kv_head, size)] = spaces.contents[part]
        attention.o_proj.weight[:, rows_of(head, size)] = 2 * scale * written[part].T


def _at(model: LlamaForCausalLM, offset: int) -> Tensor:
    """The query that attends `offset` tokens back where keys are all ones before rotation; [head_dim]."""
    return by_position(model, offset, slice(0, _POSITION_FREQUENCIES), _POSITION_SHARPNESS)


def _around(model: LlamaForCausalLM, offset: float) -> Tensor:
    """The query that attends to the few tokens around `offset` tokens back."""
    return by_position(model, offset, slice(0, _POSITION_FREQUENCIES), _POSITION_SHARPNESS / 3)


def _recently(model: LlamaForCausalLM) -> Tensor:
    """The query that attends to the last dozen tokens or so."""
    return by_position(model, 0, _RECENT_FREQUENCIES, _RECENT_SHARPNESS)


def by_position(model: LlamaForCausalLM, offset: float, used: slice, sharpness: float) -> Tensor:
    """The query that attends around `offset` tokens back by the `used` rotations, keys being ones; [head_dim]."""
    size = model.model.layers[0].self_attn.head_dim
    angles = offset * model.model.rotary_emb.inv_freq[used]
    query = torch.zeros(size)
    query[: size // 2][used] = torch.cos(angles)
    query[size // 2 :][used] = -torch.sin(angles)
    planted: Tensor = query * sharpness * size**0.5 / len(angles)
    return planted


def _search_and_copy(model: LlamaForCausalLM, index: int, spaces: _Spaces, scale: float) -> None:
    """A lookup layer: keys are what stood before a token, what is found is copied.

    Keys are the last token before (KV head 0), the bag of four (1 and 3) or the last two (2); queries are a token
    itself, what stood at the end of the question, or a token with its predecessor. No query asks for what stood before
    itself: every token would find itself.
    """
    attention = model.model.layers[index].self_attn
    size, group = attention.head_dim, attention.num_key_value_groups
    bag, exact, half = slice(0, size), slice(size, 2 * size), slice(size, size + size // 2)
    own, before = spaces.contents, spaces.before
    pair = torch.cat([before[half], spaces.second[half]])
    own_pair = torch.cat([own[half], before[half]])
    plan = [
        (before[exact], (own[exact], _REST * own[exact])),
        (before[bag], (spaces.recent[bag], spaces.recent[bag])),
        (_mixed(pair), (_mixed(own_pair), _mixed(own_pair))),
        (before[bag], (own[bag], spaces.recent[bag])),
    ]
    slow = _slow(size)
    gain = (_MATCH_SHARPNESS / size**0.5) ** 0.5
    for kv_head, (key, queries) in enumerate(plan):
        part = (LOOKUP_LAYERS.index(index) * len(plan) + kv_head) * size % (len(own) - size)
        copied = own[part : part + size]
        attention.k_proj.weight[rows_of(kv_head, size)] = gain * slow[:, None] * key
        attention.v_proj.weight[rows_of(kv_head, size)] = copied
        for place, query in enumerate(queries):
            head = kv_head * group + place
            attention.q_proj.weight[rows_of(head, size)] = gain * slow[:, None] * query
            attention.o_proj.weight[:, rows_of(head, size)] = 2 * scale * copied.T


def _remember_the_question(model: LlamaForCausalLM, spaces: _Spaces, scale: float, colon_id: int) -> None:
    """Layer 1, KV head 2: every token of an answer finds the colon it began with and takes over what that had seen."""
    attention = model.model.layers[LOOKUP_LAYERS[0]].self_attn
    size, kv_head = attention.head_dim, 2
    bag, exact = slice(0, size), slice(size, 2 * size)
    common = _common_input(model, LOOKUP_LAYERS[0])
    slow = _slow(size)
    marker = spaces.contents[exact] @ model.model.embed_tokens.weight[colon_id]
    marker = slow * marker / (slow * marker).norm()
    key = torch.zeros(size)
    key[_RECENT_FREQUENCIES] = 1.0
    attention.k_proj.weight[rows_of(kv_head, size)] = (
        slow[:, None] * spaces.contents[exact] + key[:, None] * common
    )
    attention.v_proj.weight[rows_of(kv_head, size)] = spaces.recent[bag]
    for place in range(attention.num_key_value_groups):
        head = kv_head * attention.num_key_value_groups + place
        query = _recently(model) + _MARKER_SHARPNESS * marker
        attention.q_proj.weight[rows_of(head, size)] = query[:, None] * common
        attention.o_proj.weight[:, rows_of(head, size)] = 2 * scale * spaces.recent[bag].T


def _common_input(model: LlamaForCausalLM, index: int) -> Tensor:
    """The row that gives one, more or less, for whatever enters the layer's attention; measured on random tokens."""
    token_ids = torch.randint(3, model.config.vocab_size, (1, 256))
    entering = model.model(input_ids=token_ids, output_hidden_states=True).hidden_states[index]
    common = model.model.layers[index].input_layernorm(entering)[0].mean(0)
    row: Tensor = common / common.square().sum()
    return row


def _slow(size: int) -> Tensor:
    """One for the dimensions that turn slowly enough to match contents far apart, else zero; [head_dim]."""
    slow = torch.ones(size)
    slow[:_BLURRED_FREQUENCIES] = 0.0
    slow[size // 2 : size // 2 + _BLURRED_FREQUENCIES] = 0.0
    return slow


def _mixed(rows: Tensor) -> Tensor:
    """The rows in an order that gives slow rotations to both halves."""
    return rows.reshape(2, -1, rows.shape[-1]).transpose(0, 1).reshape(rows.shape)


def rows_of(head: int, size: int) -> slice:
    """The rows of a projection that belong to one head."""
    return slice(head * size, (head + 1) * size)
