"""Adds the layer that lists: it counts the words of a document and takes back what an answer has said.

The layers of the lookups blur what a token is itself: from the fourth layer's output a linear map tells the token in
one case of four. So every word that an answer may list gets a direction of its own in a channel that is added to the
residual stream, `CHANNEL` dimensions wide, which no other layer reads or writes. The added layer reads the channel as
values and writes it as logits, through the tied embeddings. Of two of its KV heads, one query each

- averages evenly over everything: the share of each word, times `_COUNT_GAIN`, becomes its logit;
- averages over what the answer has said, and takes it back.

Both look at <bos>, whose value is nothing, wherever they are not wanted. Where they are wanted is read from the fourth
layer's output by a logistic regression on training documents: the lookup layers know what is asked, because they have
learned the form of all answers. Nothing else is trained here, so nothing that was learned is lost.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from windowkv_service.model.builtin.documents import lexicon
from windowkv_service.model.builtin.initialisation import by_position, rows_of
from windowkv_service.model.builtin.packing import IGNORED, Batch

CHANNEL = (
    128  # one direction per listed word (words of the two lists share them), one of <bos>, one of all tokens
)
_BOS, _ALL = CHANNEL - 2, CHANNEL - 1
_LOUDNESS = 0.01  # of the channel in the embeddings: too little to be heard in the other layers' norms
_WRITING = 4000.0  # weight of the channel in the last norm
_COUNT_GAIN = 200.0
_TAKE_GAIN = 400.0
_GATE_SHARPNESS = 8.0
_SAID_SHARPNESS = 12.0
_REGULARISATION = 1e-4  # of the gates
_RIDGE = 1e-3  # of the even map
_RECENT_FREQUENCIES = slice(5, 9)  # an answer is a few dozen tokens long
_RECENT_SHARPNESS = 6.0
_LISTING_KV_HEADS = 2  # together they see the whole channel


@dataclass(frozen=True)
class _Observations:
    """What enters the added layer.

    answering: [num_answer_tokens, hidden], with is_counting and is_taking for where a head is wanted.
    reading: [num_tokens, hidden] where something is listed, with is_said for the words that an answer has listed.
    starts: [num_sequences, hidden], at <bos>.
    """

    answering: Tensor
    is_counting: Tensor
    is_taking: Tensor
    reading: Tensor
    is_said: Tensor
    starts: Tensor


@torch.no_grad()
def with_listing_layer(
    lookups: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    counting: Sequence[Batch],
    other: Sequence[Batch],
) -> LlamaForCausalLM:
    """A model of one layer and `CHANNEL` dimensions more, which says what `lookups` says, and lists.

    counting: training documents whose questions ask to count words; other: those of all other tasks.
    """
    model = _widened(lookups)
    _give_directions(model, tokenizer)
    seen = [_observe(model, batch, True) for batch in counting]
    seen += [_observe(model, batch, False) for batch in other]
    names = [field.name for field in fields(_Observations)]
    every = _Observations(*(torch.cat([getattr(each, name) for each in seen]) for name in names))
    _plant(model, every, lookups.config.hidden_size)
    return model


def _widened(lookups: LlamaForCausalLM) -> LlamaForCausalLM:
    """The same function with room for the channel, and a last layer that does nothing yet."""
    config, narrow = copy.deepcopy(lookups.config), lookups.config.hidden_size
    config.hidden_size, config.num_hidden_layers = narrow + CHANNEL, config.num_hidden_layers + 1
    config.layer_types = None
    model = LlamaForCausalLM(config)
    weights = model.state_dict()
    for weight in weights.values():
        weight.zero_()
    for name, weight in lookups.state_dict().items():
        if weight.dim() == 2:
            weights[name][: weight.shape[0], : weight.shape[1]] = weight
        else:  # the norms divide by the root of a mean over more dimensions now
            weights[name][:narrow] = weight * (narrow / config.hidden_size) ** 0.5
    model.model.layers[-1].input_layernorm.weight.fill_(1.0)
    model.model.norm.weight[narrow:-2] = _WRITING
    return model


def _give_directions(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes the channel of the embeddings."""
    channel = model.model.embed_tokens.weight[:, -CHANNEL:]
    channel[:, _ALL] = _LOUDNESS
    channel[tokenizer.bos_token_id, _BOS] = _LOUDNESS
    for words in (lexicon.COMMON, lexicon.FREQUENT):
        for direction, word in enumerate(words):
            (token_id,) = tokenizer(f" {word}", add_special_tokens=False).input_ids
            channel[token_id, direction] = _LOUDNESS


def _observe(model: LlamaForCausalLM, batch: Batch, counts: bool) -> _Observations:
    entering = model.model(input_ids=batch.token_ids, output_hidden_states=True).hidden_states[-2]
    entering = F.rms_norm(entering, entering.shape[-1:])
    is_part = batch.choices > 0
    is_later, is_said = torch.zeros_like(is_part), torch.zeros_like(is_part)
    for choices, later in zip(batch.choices, is_later, strict=True):
        for answer in choices[choices > 0].unique():
            later[(choices == answer).nonzero()[1:, 0]] = True
    is_said[:, 1:] = is_part[:, :-1]
    # Where nothing is listed the taking head looks at <bos>, and what it would read does not matter.
    is_answer, is_read = batch.answers > 0, (batch.labels != IGNORED) & bool(is_part.any())
    return _Observations(
        entering[is_answer],
        is_part[is_answer] & counts,
        is_later[is_answer],
        entering[is_read],
        is_said[is_read],
        entering[:, 0],
    )


def _plant(model: LlamaForCausalLM, seen: _Observations, narrow: int) -> None:
    """Writes the added layer's attention: of each of its first KV heads one query counts, one takes back."""
    attention = model.model.layers[-1].self_attn
    size, group = attention.head_dim, attention.num_key_value_groups
    gate, said = size // 2 - 1, size // 2 - 2  # dimensions that hardly turn with the position
    all_row = narrow + _ALL
    loudness, answering = seen.reading[:, all_row].mean(), seen.answering[:, all_row].mean()

    key = torch.zeros(size, narrow + CHANNEL)
    key[: size // 2 - 2, all_row] = 1.0 / loudness
    key[gate, narrow + _BOS] = 1.0 / seen.starts[:, narrow + _BOS].mean()
    key[said] = _tell_evenly(seen.reading, seen.is_said, narrow, loudness)
    counting = torch.zeros(size, narrow + CHANNEL)
    counting[gate] = (
        -_GATE_SHARPNESS * size**0.5 * _separate(seen.answering, seen.is_counting, narrow, answering)
    )
    taking = torch.zeros(size, narrow + CHANNEL)
    taking[:, all_row] = by_position(model, 0, _RECENT_FREQUENCIES, _RECENT_SHARPNESS) / answering
    taking[said] = 0.0
    taking[said, all_row] = _SAID_SHARPNESS * size**0.5 / answering
    taking[gate] = -_GATE_SHARPNESS * size**0.5 * _separate(seen.answering, seen.is_taking, narrow, answering)

    for kv_head in range(_LISTING_KV_HEADS):
        part = torch.arange(kv_head * size, (kv_head + 1) * size)
        part = part[part < _BOS]
        places = part - kv_head * size
        attention.k_proj.weight[rows_of(kv_head, size)] = key
        attention.v_proj.weight[kv_head * size + places, narrow + part] = 1.0 / loudness
        for place, (query, gain) in enumerate(((counting, _COUNT_GAIN), (taking, -_TAKE_GAIN))):
            head = kv_head * group + place
            attention.q_proj.weight[rows_of(head, size)] = query
            attention.o_proj.weight[narrow + part, head * size + places] = gain


def _separate(inputs: Tensor, is_wanted: Tensor, narrow: int, loudness: Tensor) -> Tensor:
    """The row that is well above zero for inputs that are wanted and well below for others; [narrow + CHANNEL].

    A logistic regression on the lookup layers' part, both kinds weighing the same.
    """
    features, shares = _with_constant(inputs, narrow), _even_shares(is_wanted)
    row = torch.zeros(narrow + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([row], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        errors = F.softplus(torch.where(is_wanted, -1.0, 1.0) * (features @ row))
        total = (shares * errors).sum() + _REGULARISATION * row.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return _read_in_channel(row.detach(), loudness)


def _tell_evenly(inputs: Tensor, is_wanted: Tensor, narrow: int, loudness: Tensor) -> Tensor:
    """The row that is about one for inputs that are wanted and minus one for others; [narrow + CHANNEL].

    A ridge regression, so that all that are wanted are attended to alike.
    """
    features, shares = _with_constant(inputs, narrow), _even_shares(is_wanted)
    weighted = features.T * shares
    target = torch.where(is_wanted, 1.0, -1.0)
    row = torch.linalg.solve(weighted @ features + _RIDGE * torch.eye(narrow + 1), weighted @ target)
    return _read_in_channel(row, loudness)


def _with_constant(inputs: Tensor, narrow: int) -> Tensor:
    return torch.cat([inputs[:, :narrow], torch.ones(len(inputs), 1)], dim=1)


def _even_shares(is_wanted: Tensor) -> Tensor:
    return torch.where(is_wanted, 0.5 / is_wanted.sum(), 0.5 / (~is_wanted).sum())


def _read_in_channel(row: Tensor, loudness: Tensor) -> Tensor:
    """The row with its constant read from what all tokens have in the channel."""
    channel = torch.zeros(CHANNEL)
    channel[_ALL] = row[-1] / loudness
    return torch.cat([row[:-1], channel])
