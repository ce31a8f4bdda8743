"""What this room needs of the engine and the tokenizer; assembly hands in the real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol, TypeVar

from windowkv_service.domain.requests import CreateRequest, GenerateRequest, ListRequest, UpdateRequest
from windowkv_service.domain.results import (
    CacheInfo,
    CachePage,
    CreateOutcome,
    DeleteReceipt,
    EngineStatus,
    GenerateChunk,
    ModelInfo,
    PrefillProgress,
)

T_co = TypeVar("T_co", covariant=True)


class Events(Protocol[T_co]):
    """A request in the engine, as what it produces. Closing cancels the request and frees what it held."""

    def __aiter__(self) -> AsyncIterator[T_co]: ...
    async def __anext__(self) -> T_co: ...
    async def aclose(self) -> None: ...


class EngineClient(Protocol):
    """The engine as the event loop sees it. Everything raises WindowKVError; nothing blocks the loop."""

    @property
    def model(self) -> ModelInfo: ...

    def create_cache(self, request: CreateRequest) -> Events[PrefillProgress | CreateOutcome]:
        """Progress while prefilling, then the outcome, once, last."""

    def generate(self, request: GenerateRequest) -> Events[GenerateChunk]:
        """The answer in pieces, coalesced while the reader is slow; finish_reason and usage come last."""

    async def get_cache(self, tenant: str, name: str) -> CacheInfo: ...

    async def list_caches(self, request: ListRequest) -> CachePage:
        """page_size 0 is the default; BadOption when it is negative, BadPageToken for another list's token."""

    async def update_cache(self, request: UpdateRequest) -> CacheInfo: ...
    async def delete_cache(self, tenant: str, name: str) -> DeleteReceipt: ...

    def status(self) -> EngineStatus:
        """A few fields read at once; called by every health check."""


class Tokenizer(Protocol):
    """Text to tokens and back. Called from several threads."""

    @property
    def vocab_size(self) -> int: ...

    def tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def detokenize(self, token_ids: Sequence[int]) -> str: ...

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], *, is_continuation: bool, add_generation_prompt: bool
    ) -> list[int]:
        """The conversation as tokens by the model's template; InvalidText when it is absent or refuses."""
