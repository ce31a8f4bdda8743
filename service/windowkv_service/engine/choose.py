"""What stays of a prompt: staged, observed and chosen, by whichever kind of method."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from windowkv_service.domain.requests import Compression, Retention
from windowkv_service.engine.budget import block_budget
from windowkv_service.engine.compute import Meanwhile, OnProgress, compute
from windowkv_service.engine.fetch import FetchReport
from windowkv_service.engine.index import LeaderIndex
from windowkv_service.engine.prompt import Prompt, Windows
from windowkv_service.engine.prune import Pruning, prune
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.reuse import reuse
from windowkv_service.engine.task import Walk
from windowkv_service.kv.buffers import Staging
from windowkv_service.kv.strips import Strips, rounding_bytes
from windowkv_service.model.attention import Observed
from windowkv_service.selection.base import (
    Observation,
    Pruner,
    Repeated,
    Selection,
    Selector,
    WindowSelection,
)
from windowkv_service.selection.fidelity import widen


@dataclass(frozen=True)
class Chosen:
    """prompt: as its blocks will hold it. windows: the blocks of its compressed form. retained: the windows that are
    kept below beside blocks of strips. num_reused: tokens from a tier. computed_time: when only choosing was left."""

    prompt: Prompt
    windows: Windows
    retained: Windows
    fidelity: float
    num_reused: int = 0
    index: LeaderIndex | None = None
    computed_time: float = field(default_factory=time.monotonic)

    @property
    def index_bytes(self) -> int:
        return 0 if self.index is None else self.index.size_bytes


def choose(
    resources: Resources,
    prompt: Prompt,
    compression: Compression,
    staging: Staging,
    report: FetchReport,
    on_progress: OnProgress,
    meanwhile: Meanwhile,
) -> Walk[Chosen]:
    """Stage the prompt and choose; what staging then holds is what the chosen blocks are made of. meanwhile: see
    compute."""
    method = resources.selectors[compression.method]
    if _keeps_all(prompt, compression):
        observed = Observed((), 0)
        num_reused = yield from reuse(resources, prompt, staging, 0, report)
        yield from compute(resources, prompt, staging, observed, num_reused, on_progress, meanwhile)
        return Chosen(prompt, prompt.all_windows(), prompt.all_windows(), 1.0, num_reused)
    if isinstance(method, Pruner):
        budget = block_budget(prompt, compression.kept_ratio, 0) - rounding_bytes(prompt.layout)
        pruning = Pruning(method, prompt.layout, prompt.num_tokens, budget)
        yield from prune(resources, prompt, staging, pruning, on_progress)
        selection = pruning.selection()
        prompt, windows = _laid_out(prompt, selection, compression.method)
        return Chosen(prompt, windows, prompt.no_windows(), selection.fidelity)
    observed = Observed(method.observed_layers(prompt.layout), method.observation_size)
    num_reused = yield from reuse(resources, prompt, staging, method.observation_size, report)
    yield from compute(resources, prompt, staging, observed, num_reused, on_progress, meanwhile)
    return _select(resources, prompt, compression, method, staging, observed, num_reused)


def _keeps_all(prompt: Prompt, compression: Compression) -> bool:
    """Nothing is to be dropped, or nothing can be: sliding layers keep what they see and no more."""
    return (
        compression.kept_ratio >= 1.0 or compression.method == "full" or not prompt.layout.selectable_groups
    )


def keeps_whole(resources: Resources, prompt: Prompt, compression: Compression) -> bool:
    """Whether every window of the prompt, as it is computed in full, is kept below whatever is chosen."""
    if _keeps_all(prompt, compression):
        return True
    is_pruned = isinstance(resources.selectors[compression.method], Pruner)
    return compression.retention is Retention.FULL and not is_pruned


def _select(
    resources: Resources,
    prompt: Prompt,
    compression: Compression,
    selector: Selector,
    staging: Staging,
    observed: Observed,
    num_reused: int,
) -> Chosen:
    computed = time.monotonic()
    index = _make_index(resources, prompt, compression, staging)
    budget = block_budget(prompt, compression.kept_ratio, 0 if index is None else index.size_bytes)
    if selector.chooses_tokens:
        budget -= rounding_bytes(prompt.layout)
    observation = _observe(resources, prompt, staging, observed)
    selection = selector.select(observation, budget_bytes=budget, task=compression.task)
    if isinstance(selection, WindowSelection):
        selection = widen(selection, prompt.layout, compression.min_fidelity)
    prompt, windows = _laid_out(prompt, selection, compression.method)
    retained = _retained(prompt, windows, compression)
    return Chosen(prompt, windows, retained, selection.fidelity, num_reused, index, computed)


def _make_index(
    resources: Resources, prompt: Prompt, compression: Compression, staging: Staging
) -> LeaderIndex | None:
    """Leader keys, where a later question may choose again: all windows are kept below, not all of them here."""
    profile = resources.profiles.get(compression.method)
    if profile is None or compression.retention is not Retention.FULL:
        return None
    return LeaderIndex.build(profile, prompt.layout, staging, prompt.num_tokens)


def _observe(resources: Resources, prompt: Prompt, staging: Staging, observed: Observed) -> Observation:
    return Observation(
        queries=observed.by_layer,
        keys=lambda layer: staging.keys(layer, prompt.num_tokens),
        num_tokens=prompt.num_tokens,
        scales=resources.model.scales,
        layout=prompt.layout,
        values=lambda layer: staging.values(layer, prompt.num_tokens),
        rotary=resources.runner.rotary,
        token_ids=prompt.token_ids,
        lse=observed.lse,
        repeat=lambda token_ids: _repeat(resources, prompt, observed.layers, staging, token_ids),
    )


def _repeat(
    resources: Resources,
    prompt: Prompt,
    layers: Iterable[int],
    staging: Staging,
    token_ids: Sequence[int],
) -> dict[int, Repeated]:
    """All within one step of the worker: the answers that decode meanwhile wait for it."""
    seen = resources.runner.repeat(token_ids, prompt.num_tokens, staging, layers)
    return {layer: Repeated(queries, keys) for layer, (queries, keys) in seen.items()}


def _laid_out(prompt: Prompt, selection: Selection, method: str) -> tuple[Prompt, Windows]:
    """The prompt as its blocks will hold it, and which blocks those are."""
    if isinstance(selection, WindowSelection):
        return prompt, selection.windows
    split = replace(prompt, strips=Strips.of(prompt.layout, selection.tokens, method))
    return split, split.own_blocks()


def _retained(prompt: Prompt, windows: Windows, compression: Compression) -> Windows:
    """The windows that are kept below, beside the blocks of strips."""
    if compression.retention is Retention.FULL:
        return prompt.all_windows()
    strips = prompt.strips
    return [
        [] if strips is not None and group in strips else windows[group.index]
        for group in prompt.layout.groups
    ]
