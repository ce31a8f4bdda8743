"""One model under measurement: the service's own parts put together on it, without the service around them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from model_shapes import Shape, Sizes, build, layout_of
from torch import nn

import windowkv_kernels as kernels
from windowkv_kernels import QuantizedKeys
from windowkv_service.domain.requests import Sampling, Task
from windowkv_service.engine.passes import Passes
from windowkv_service.engine.tables import BlockTables, stack_up
from windowkv_service.kv.buffers import Arenas, Staging
from windowkv_service.kv.layout import KVLayout
from windowkv_service.model.attention import ATTENTION_NAME, Observed
from windowkv_service.model.decode_steps import DecodeSteps
from windowkv_service.model.prompt_attention import Terms, prompt_attention, visible_keys
from windowkv_service.model.runner import Runner
from windowkv_service.model.sampler import Drawn, SamplerBatch, SamplerState, sample
from windowkv_service.selection.base import Observation, WindowSelection
from windowkv_service.selection.question import QuestionProfile, choose_windows, default_profile
from windowkv_service.selection.windowkv import WindowKV

Windows = Sequence[Sequence[int]]  # per layer group


@dataclass(frozen=True)
class Memory:
    """Blocks of the device, and the runner on them, as it comes and over static memory."""

    arenas: Arenas
    runner: Runner
    passes: Passes


@dataclass(frozen=True)
class Cached:
    """A prefilled document: its windows chosen as they are when it is created, and its leader keys."""

    windows: Windows
    index: dict[int, QuantizedKeys]


class Subject:
    def __init__(self, shape: Shape, sizes: Sizes, device: torch.device) -> None:
        self.shape = shape
        self.sizes = sizes
        self.device = device
        self.module: nn.Module = build(shape, sizes, device)
        self.module.set_attn_implementation(ATTENTION_NAME)  # type: ignore[operator]
        self.config = self.module.config
        self.layout: KVLayout = layout_of(self.config, sizes)
        self.scale = self.layout.head_dim**-0.5
        self._draw = random.Random(0)

    @cached_property
    def profile(self) -> QuestionProfile:
        return default_profile(self.layout)

    @cached_property
    def selector(self) -> WindowKV:
        return WindowKV(leaders=self.profile.leaders, vote_tokens=self.profile.vote_tokens)

    def prompt(self, num_tokens: int) -> list[int]:
        return [self._draw.randrange(self.config.vocab_size) for _ in range(num_tokens)]

    def memory(self, blocks_per_group: int) -> Memory:
        per_arena: dict[int, int] = {}
        for group in self.layout.groups:
            arena = len(group.layers)
            per_arena[arena] = per_arena.get(arena, 0) + blocks_per_group
        arenas = Arenas(self.layout, per_arena, dtype=self.sizes.dtype, device=self.device)
        runner = Runner(self.module, self.layout, arenas, self.device)
        return Memory(arenas, runner, Passes.on(runner, self.sizes.window_size, self.device))

    # A document and a question

    def prefill(self, memory: Memory, token_ids: Sequence[int]) -> tuple[Staging, Observed]:
        observed = Observed(self.selector.observed_layers(self.layout), self.selector.observation_size)
        staging = Staging(self.layout, len(token_ids), dtype=self.sizes.dtype, device=self.device)
        for first in range(0, len(token_ids), self.sizes.chunk):
            memory.runner.prefill(token_ids[first : first + self.sizes.chunk], first, staging, observed)
        return staging, observed

    def compress(self, memory: Memory, staging: Staging, observed: Observed, num_tokens: int) -> Cached:
        """Leader keys, scores, choice, and the chosen windows' blocks."""
        index = {
            layer: kernels.quantize_keys(staging.keys(layer, num_tokens), bits=self.profile.index_bits)
            for layer in self.profile.layers
        }
        budget = self.budget(num_tokens)
        observation = Observation(
            queries=observed.by_layer,
            keys=lambda layer: staging.keys(layer, num_tokens),
            num_tokens=num_tokens,
            scales=dict.fromkeys(range(self.config.num_hidden_layers), self.scale),
            layout=self.layout,
            lse=observed.lse,
        )
        selection = self.selector.select(observation, budget_bytes=budget, task=Task.AUTO)
        assert isinstance(selection, WindowSelection)
        blocks = self.place(selection.windows)
        for group in self.layout.groups:
            kernels.gather_windows(
                staging.tensor,
                [staging.rows[layer] for layer in group.layers],
                torch.tensor(selection.windows[group.index], device=self.device),
                num_tokens,
                memory.arenas.of(group),
                torch.tensor(blocks[group.index], device=self.device),
            )
        return Cached(selection.windows, index)

    def ask(
        self,
        memory: Memory,
        cached: Cached,
        num_tokens: int,
        question: Sequence[int],
        fetch: Callable[[Windows], None] = lambda windows: None,
    ) -> int:
        """The question chooses its windows, fetch brings their blocks, and the first token is answered over them. The
        blocks' bytes are what lies there: the time is what counts."""
        ids = torch.tensor([question], device=self.device)
        positions = num_tokens + torch.arange(len(question), device=self.device)[None]
        leaders = frozenset(self.profile.layers)
        tables = self.tables(cached.windows, num_tokens)
        heard = memory.passes.listen(tables, 0, ids, positions, leaders)
        scores = {
            layer: self.profile.score(
                queries[0], cached.index[layer], window_size=self.sizes.window_size, scale=self.scale
            )
            for layer, (queries, _) in heard.items()
        }
        chosen = choose_windows(
            scores, self.profile, self.layout, num_tokens, budget_bytes=self.budget(num_tokens)
        )
        fetch(chosen.windows)
        tables = self.tables(chosen.windows, num_tokens)
        logits = memory.passes.logits(tables, 0, ids, positions)
        return sample(logits, [self.sampler()])[0].token_id

    def last_chunk(self, num_tokens: int) -> tuple[Callable[[], object], int]:
        """The attention of one layer for a document's last chunk, and its FLOPs."""
        sizes, layout = self.sizes, self.layout
        heads, length = self.config.num_attention_heads, sizes.chunk
        options: dict[str, Any] = {"dtype": sizes.dtype, "device": self.device}
        queries = torch.randn(1, length, heads, layout.head_dim, **options).transpose(1, 2)
        staged = torch.randn(2, num_tokens, layout.num_kv_heads, layout.head_dim, **options)
        keys, values = staged.transpose(1, 2)[:, None]
        terms = Terms(self.scale, None, None, None)
        seen = length * (num_tokens - length) + length * (length + 1) // 2  # pairs of a query and a key

        def attend() -> object:
            return prompt_attention(
                queries, keys, values, terms, lambda: visible_keys(length, num_tokens, None, self.device)
            )

        return attend, 4 * heads * layout.head_dim * seen

    def budget(self, num_tokens: int) -> int:
        index_bytes = self.profile.index_bytes(self.layout, num_tokens)
        return int(self.sizes.kept_ratio * self.layout.full_bytes(num_tokens)) - index_bytes

    # Decoding

    def decoding(self, memory: Memory, windows: Sequence[Windows], num_tokens: int) -> Decoding:
        """Sequences on documents of their own, whose blocks hold random numbers."""
        for tensor in memory.arenas.tensors.values():
            tensor.normal_()
        first, tables = 0, []
        for each in windows:
            tables.append(self.tables(each, num_tokens, first))
            first += self.blocks_per_group(each)
        steps = DecodeSteps.on(memory.runner, self.sizes.window_size, self.device)
        zeros = torch.zeros(len(tables), dtype=torch.long, device=self.device)
        steps.begin(stack_up(tables), zeros + 1, zeros + num_tokens, zeros)
        states = [self.sampler() for _ in tables]
        return Decoding(steps, SamplerBatch(states, self.config.vocab_size, self.device))

    def some_windows(self, num_tokens: int, kept_ratio: float) -> Windows:
        num_windows = self.layout.num_windows(num_tokens)
        count = max(1, round(kept_ratio * num_windows))
        return [sorted(self._draw.sample(range(num_windows), count)) for _ in self.layout.groups]

    def blocks_per_group(self, windows: Windows) -> int:
        return max(map(len, windows)) + self.sizes.tail // self.sizes.window_size

    def place(self, windows: Windows, first: int = 0) -> list[list[int]]:
        """Block ids for a document's windows; groups of one arena lie one after the other in every row of it."""
        ordinal: dict[int, int] = {}
        placed = []
        for group, chosen in zip(self.layout.groups, windows, strict=True):
            number = ordinal[len(group.layers)] = ordinal.get(len(group.layers), -1) + 1
            stride = sum(len(other.layers) == len(group.layers) for other in self.layout.groups)
            placed.append([(first + place) * stride + number for place in range(len(chosen))])
        return placed

    def tables(self, windows: Windows, num_tokens: int, first: int = 0) -> BlockTables:
        blocks = self.place(windows, first)
        longest = max(map(len, windows))
        tail = self.sizes.tail // self.sizes.window_size
        tails = self.place([range(tail)] * len(windows), first + longest)
        return BlockTables(self.layout, windows, blocks, tails, num_tokens, self.device)

    @staticmethod
    def sampler() -> SamplerState:
        return SamplerState.make(Sampling(), (), frozenset(), fresh_seed=0)


@dataclass
class Decoding:
    """A running batch. Each call is one step, as the engine makes them: the tokens go back into the next on the
    device, and those of the step before are read."""

    steps: DecodeSteps
    sampler: SamplerBatch
    before: Drawn | None = None

    def __call__(self) -> None:
        drawn = self.sampler.sample(self.steps.logits())
        self.steps.feed(drawn.token_ids)
        if self.before is not None:
            self.before.read()
        self.before = drawn
