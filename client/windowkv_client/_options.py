"""The keyword arguments of the SDK's calls, said once for both clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

from windowkv_client._models import Chunk, Codec, Durability, Progress, Retention, Selection, Task
from windowkv_client._ttl import Ttl

Messages = Sequence[Mapping[str, str]]  # [{"role": "user", "content": "…"}, …]


class PromptOptions(TypedDict, total=False):
    """A prompt in exactly one form; text may also be given as the first argument."""

    messages: Messages
    token_ids: Sequence[int]


class CompressionOptions(TypedDict, total=False):
    """How a cache is compressed; what is left out is the service's default."""

    kept_ratio: float  # share of the full cache's bytes that the device may hold, in (0, 1]
    method: str
    task: Task | str
    retention: Retention | str
    min_fidelity: float  # share of the attention that a choice must capture, if it takes more than kept_ratio
    codec: Codec | str  # how blocks are written below the device


class CacheOptions(CompressionOptions, total=False):
    ttl: Ttl
    display_name: str
    labels: Mapping[str, str]
    alias: str
    pinned: bool
    durability: Durability | str
    model: str  # refuse to answer with another model
    on_progress: Callable[[Progress], object]
    timeout: float  # seconds


class CreateOptions(PromptOptions, CacheOptions, total=False):
    """What caches.create takes."""


class SamplingOptions(TypedDict, total=False):
    """vLLM's names; greedy when nothing is said."""

    max_tokens: int
    min_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int
    stop: Sequence[str] | str
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    logprobs: int


class SelectionOptions(TypedDict, total=False):
    """Which windows of a compressed cache an answer reads. What is left out is the cache's own, or the model's."""

    selection: Selection | str  # who chooses
    min_fidelity: (
        float  # share of the attention that every choice must capture, if it takes more than kept_ratio
    )
    reselect_every: int  # choose again after so many generated tokens; 0: never


class GenerateOptions(PromptOptions, SamplingOptions, SelectionOptions, total=False):
    """What generate takes."""

    kept_ratio: float  # of this answer's windows; the cache's own when left out
    model: str
    timeout: float  # seconds, for the whole answer
    resume: bool  # go on by itself when the stream breaks; True when left out


class AskOptions(CacheOptions, SamplingOptions, SelectionOptions, total=False):
    """What ask takes; kept_ratio is the cache's, min_fidelity the cache's and the question's."""

    resume: bool
    on_chunk: Callable[[Chunk], object]


class UpdateOptions(TypedDict, total=False):
    """What caches.update changes; what is left out stays, and an empty value clears."""

    ttl: Ttl
    display_name: str
    labels: Mapping[str, str]
    alias: str
    pinned: bool
    timeout: float
