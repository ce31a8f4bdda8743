"""What the service refuses, refused alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from windowkv.v1 import cache_pb2, generation_pb2, types_pb2
from windowkv_client._errors import (
    BadBudget,
    BadFilter,
    BadName,
    BadOption,
    BadSampling,
    BadTtl,
    BadUpdateMask,
    EmptyPrompt,
    InvalidRequest,
    PromptTooLong,
    TokenOutOfVocabulary,
    UnknownMethod,
)
from windowkv_client.testing import _copying as model

METHODS = ("windowkv",)
MAX_TTL_S = 10 * 366 * 86400
_NAME = re.compile(r"caches/[0-9a-f]{40}|aliases/[a-z0-9-]{1,64}")
_ALIAS = re.compile(r"[a-z0-9-]{0,64}")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_./-]{0,62}")
_RANGES = {
    "max_tokens": (1, 1_000_000),
    "temperature": (0.0, 100.0),
    "top_k": (0, 1 << 31),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "seed": (0, (1 << 63) - 1),
    "logprobs": (0, 20),
}
_ABOVE_ZERO = {"top_p": 1.0, "repetition_penalty": 100.0}


def prompt_tokens(prompt: types_pb2.Input, *, may_be_empty: bool = False) -> list[int]:
    form = prompt.WhichOneof("form")
    if form == "token_ids":
        tokens = checked_tokens(prompt.token_ids.token_ids, "input.token_ids")
    elif form == "messages":
        turns = [(message.role, message.content) for message in prompt.messages.messages]
        tokens = model.tokenize(model.render_chat(turns))
    else:
        tokens = model.tokenize(prompt.text)
    if not tokens and not may_be_empty:
        raise EmptyPrompt("the prompt is empty", field=f"input.{form}" if form else "input")
    return tokens


def question_of(prompt: types_pb2.Input) -> str:
    """What was asked: the text, or the last message."""
    if prompt.WhichOneof("form") == "messages" and prompt.messages.messages:
        return prompt.messages.messages[-1].content
    return model.detokenize(prompt_tokens(prompt, may_be_empty=True))


def check_length(num_tokens: int, max_tokens: int) -> None:
    if num_tokens > max_tokens:
        raise PromptTooLong(f"{num_tokens} tokens are more than the model's {max_tokens}", field="input")


def check_sampling(sampling: generation_pb2.Sampling) -> None:
    given = {field.name: value for field, value in sampling.ListFields()}
    for name, (low, high) in _RANGES.items():
        _require(sampling, name, name not in given or low <= given[name] <= high)
    for name, high in _ABOVE_ZERO.items():
        _require(sampling, name, name not in given or 0.0 < given[name] <= high)
    limit = given.get("max_tokens", 128)
    _require(sampling, "min_tokens", 0 <= sampling.min_tokens <= limit)
    _require(sampling, "stop", len(sampling.stop) <= 16 and all(sampling.stop))


def check_ratio(ratio: float, field: str) -> None:
    if not 0.0 < ratio <= 1.0:
        raise BadBudget(f"kept_ratio must be in (0, 1], not {ratio}", field=field)


def check_fidelity(min_fidelity: float, field: str) -> None:
    if not 0.0 < min_fidelity <= 1.0:
        raise BadBudget(f"min_fidelity must be in (0, 1], not {min_fidelity}", field=field)


def check_selection(selection: generation_pb2.Selection) -> None:
    if selection.HasField("kept_ratio"):
        check_ratio(selection.kept_ratio, "selection.kept_ratio")
    if selection.HasField("min_fidelity"):
        check_fidelity(selection.min_fidelity, "selection.min_fidelity")
    if selection.reselect_every < 0:
        raise BadOption("reselect_every must not be negative", field="selection.reselect_every")


def check_compression(compression: cache_pb2.Compression) -> None:
    if compression.method not in ("", *METHODS):
        raise UnknownMethod(f"no method {compression.method!r}", field="cache.compression.method")
    if compression.HasField("kept_ratio"):
        check_ratio(compression.kept_ratio, "cache.compression.kept_ratio")
    if compression.HasField("min_fidelity"):
        check_fidelity(compression.min_fidelity, "cache.compression.min_fidelity")
    if compression.codec not in types_pb2.Codec.values():
        raise BadOption(f"no codec {compression.codec}", field="cache.compression.codec")


def check_name(name: str, field: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadName('"caches/{40 hex digits}" or "aliases/{1 to 64 of a-z 0-9 -}" is expected', field=field)
    return name


def check_descriptions(cache: cache_pb2.Cache) -> None:
    """Alias, display name and labels."""
    if not _ALIAS.fullmatch(cache.alias):
        raise BadName("an alias is 1 to 64 of a-z, 0-9 and -", field="cache.alias")
    if len(cache.display_name) > 128 or not cache.display_name.isprintable():
        raise BadOption("a display name is at most 128 printable characters", field="cache.display_name")
    check_labels(cache.labels, "cache.labels", BadOption)


def check_labels(labels: Mapping[str, str], field: str, error: type[InvalidRequest] = BadFilter) -> None:
    is_legal = len(labels) <= 64 and all(
        _LABEL_KEY.fullmatch(key) and len(value) <= 128 and value.isprintable()
        for key, value in labels.items()
    )
    if not is_legal:
        raise error("a label is a short lower-case key and a short printable value", field=field)


def ttl_of(cache: cache_pb2.Cache, now: float, default_s: float) -> float:
    """Seconds from now until the cache expires."""
    match cache.WhichOneof("expiration"):
        case "ttl":
            ttl_s = cache.ttl.seconds + cache.ttl.nanos / 1e9
        case "expire_time":
            ttl_s = cache.expire_time.seconds + cache.expire_time.nanos / 1e9 - now
        case _:
            return default_s
    if not 0.0 < ttl_s <= MAX_TTL_S:
        raise BadTtl("the expiry must be in the future, and not too far in it", field="cache.ttl")
    return ttl_s


def update_paths(request: cache_pb2.UpdateCacheRequest) -> set[str]:
    """The fields that an update changes."""
    mutable = {"pinned", "display_name", "labels", "alias"}
    expiration = {"ttl", "expire_time"}
    named = set(request.update_mask.paths)
    populated = {field.name for field, _ in request.cache.ListFields()} & (mutable | expiration)
    if named == {"*"}:
        return populated | mutable
    if unknown := sorted(named - mutable - expiration):
        raise BadUpdateMask(f"{unknown[0]!r} cannot be updated", field="update_mask")
    if not named and not populated:
        raise BadUpdateMask("nothing to update", field="update_mask")
    return named or populated


def checked_tokens(token_ids: Sequence[int], field: str) -> list[int]:
    for index, token_id in enumerate(token_ids):
        if token_id >= model.VOCAB_SIZE:
            raise TokenOutOfVocabulary(
                f"{token_id} is not below {model.VOCAB_SIZE}", field=f"{field}[{index}]"
            )
    return list(token_ids)


def _require(sampling: generation_pb2.Sampling, name: str, holds: bool) -> None:
    if not holds:
        raise BadSampling(f"{name} is out of range: {getattr(sampling, name)!r}", field=f"sampling.{name}")
