"""Which windows a question attends to, chosen by the question itself (design: selection at the question).

The leaders' queries of the question's last tokens score all windows of the cached prompt against the leader
index, the leaders' keys of all its tokens; every layer group then reads the windows that its leader chose.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import windowkv_kernels as kernels
from windowkv_kernels import QuantizedKeys, WindowScores
from windowkv_service.domain.requests import Task
from windowkv_service.errors import UnsupportedModel
from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection.base import Leader, Windows, WindowSelection
from windowkv_service.selection.choice import choose, num_fitting
from windowkv_service.selection.fidelity import measured
from windowkv_service.selection.page_bounds import PageBounds
from windowkv_service.selection.windowkv import join_groups

DEFAULT_TEAM_LAYERS = 8

LeaderKeys = QuantizedKeys | PageBounds  # what an index holds of one leader: size_bytes, flat()


@dataclass(frozen=True)
class QuestionProfile:
    """How a model's questions choose; found by calibration and stored with the model.

    leaders: each selectable layer group is led by exactly one.
    index_bits: per number of the leader index, 4 or 8.
    vote_tokens: so many of the question's last tokens vote. Few: the token that is to be answered is the one that looks
        the answer up, those before it look at their like all over the prompt (benchmarks/results/ablation.md).
    top_p: windows rank by the mean of their top_p largest token scores; None: by the plain mean.
    keep_first: window 0 stays. keep_last_windows: so do so many last ones. Neither where hardly anything fits.
    reselect_every: so many generated tokens after a choice the windows are chosen again; 0: never.
    """

    leaders: tuple[Leader, ...]
    index_bits: int = 4
    vote_tokens: int = 2
    top_p: int | None = None
    keep_first: bool = True
    keep_last_windows: int = 1
    reselect_every: int = 0

    def __post_init__(self) -> None:
        _require(len(self.leaders) > 0, "a profile needs a leader")
        _require(len({leader.layer for leader in self.leaders}) == len(self.leaders), "a layer leads twice")
        _require(self.index_bits in (4, 8), f"index_bits must be 4 or 8, not {self.index_bits}")
        _require(self.vote_tokens >= 1, f"vote_tokens must be at least 1, not {self.vote_tokens}")
        _require(self.top_p is None or self.top_p >= 1, f"top_p must be at least 1, not {self.top_p}")
        _require(self.keep_last_windows >= 0, "keep_last_windows must not be negative")
        _require(self.reselect_every >= 0, "reselect_every must not be negative")

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(leader.layer for leader in self.leaders)

    @property
    def digest(self) -> bytes:
        """Of what determines the bytes of a stored leader index: the layers and the codec; 32 bytes."""
        return hashlib.sha256(json.dumps([self.layers, self.index_bits]).encode()).digest()

    def check(self, layout: KVLayout) -> None:
        """Raise UnsupportedModel unless the profile fits the layout."""
        selectable = {layer: group.index for group in layout.selectable_groups for layer in group.layers}
        for layer in self.layers:
            _require(layer in selectable, f"layer {layer} cannot lead: it owns no full-attention KV")
        led = sorted(group for leader in self.leaders for group in leader.groups)
        groups = sorted(group.index for group in layout.selectable_groups)
        _require(led == groups, f"the leaders lead groups {led}, the model has {groups} to be led")

    def index_bytes(self, layout: KVLayout, num_tokens: int) -> int:
        """What the leader index of so many tokens takes."""
        per_leader = QuantizedKeys.count_bytes(
            num_tokens, layout.num_kv_heads, layout.head_dim, bits=self.index_bits
        )
        return len(self.leaders) * per_leader

    def index_of(self, keys: Tensor, layout: KVLayout) -> LeaderKeys:
        """What the index holds of a leader whose keys [num_tokens, num_kv_heads, head_dim] are these."""
        return kernels.quantize_keys(keys, bits=self.index_bits)

    def restore(self, flat: Tensor, layout: KVLayout, num_tokens: int, dtype: torch.dtype) -> LeaderKeys:
        """index_of's result from its flat(); ValueError where that is of another size. dtype: the keys'."""
        return QuantizedKeys.from_flat(
            flat,
            num_tokens=num_tokens,
            num_kv_heads=layout.num_kv_heads,
            head_dim=layout.head_dim,
            bits=self.index_bits,
        )

    def score(
        self,
        queries: Tensor,
        keys: Tensor | LeaderKeys,
        *,
        window_size: int,
        scale: float,
        softcap: float | None = None,
    ) -> WindowScores:
        """One leader's scores: queries [num_heads, m, head_dim] of the question, all cached tokens' keys."""
        assert not isinstance(keys, PageBounds)
        voters = queries[:, -self.vote_tokens :]
        return kernels.score_leader_keys(
            voters, keys, window_size=window_size, scale=scale, top_p=self.top_p, softcap=softcap
        )


def default_profile(layout: KVLayout) -> QuestionProfile:
    """Without a calibration: teams of up to 8 consecutive layers, led by the layer just below the middle.

    In the trials behind the design, and on the built-in model, the layer that finds the asked-for place was
    there: 1 of 4, 3 or 4 of 8. First layers, which lead as published, found nothing.
    """
    leaders = []
    for groups in join_groups(layout, DEFAULT_TEAM_LAYERS):
        layers = [layer for group in groups for layer in layout.groups[group].layers]
        leaders.append(Leader(layers[(len(layers) - 1) // 2], groups))
    _require(len(leaders) > 0, "the model has no full-attention layer to select for")
    return QuestionProfile(tuple(leaders))


def choose_windows(
    scores: Mapping[int, WindowScores],
    profile: QuestionProfile,
    layout: KVLayout,
    num_tokens: int,
    budget_bytes: int,
    forced: frozenset[int] | None = None,
) -> WindowSelection:
    """The windows of the cached prompt that a question reads. scores: leader layer → what its queries said.

    budget_bytes is for blocks, over all groups; every layer gets the same share. Where not even one window fits,
    the best one is chosen beyond it. forced: windows that come first, since the device holds them anyway; None: as
    the profile asks.
    """
    if forced is None:
        forced = _always_kept(profile, layout, num_tokens, budget_bytes)
    windows = choose(
        layout,
        num_tokens,
        profile.leaders,
        {layer: score.score for layer, score in scores.items()},
        forced=forced,
        shares=[1.0] * len(profile.leaders),
        budget_bytes=budget_bytes,
    )
    masses = {layer: score.mass for layer, score in scores.items()}
    task = Task.LOCALIZATION if profile.top_p is None else Task.AGGREGATION
    return measured(layout, profile.leaders, masses, windows, task)


def resident_windows(
    profile: QuestionProfile, layout: KVLayout, num_tokens: int, budget_bytes: int
) -> tuple[Windows, ...]:
    """What the device holds between questions of a prompt whose windows are all kept below: those that a choice within
    budget_bytes begins with, and what sliding layers see. Per layout group."""
    always = tuple(sorted(_always_kept(profile, layout, num_tokens, budget_bytes)))
    return tuple(
        always if group.is_selectable else tuple(layout.full_windows(group, num_tokens))
        for group in layout.groups
    )


def _always_kept(
    profile: QuestionProfile, layout: KVLayout, num_tokens: int, budget_bytes: int
) -> frozenset[int]:
    """First and last windows as the profile asks, unless they would take more than half of what fits: with room for
    two or three windows, what the question asks for comes first."""
    num_windows = layout.num_windows(num_tokens)
    last = range(max(0, num_windows - profile.keep_last_windows), num_windows)
    kept = frozenset(last) | ({0} if profile.keep_first else frozenset())
    fitting = num_fitting(layout, num_tokens, profile.leaders, budget_bytes)
    return frozenset() if fitting < 2 * len(kept) else kept


def leaders_by_layers(layout: KVLayout, led: Mapping[int, Sequence[int]]) -> tuple[Leader, ...]:
    """Leaders from leader layer → layers led. Raises UnsupportedModel where a layer group would be split."""
    leaders = []
    for layer, layers in led.items():
        groups = tuple(group for group in layout.groups if set(group.layers) & set(layers))
        whole = sorted(member for group in groups for member in group.layers)
        _require(whole == sorted(layers), f"layers {sorted(layers)} do not make up whole layer groups")
        leaders.append(Leader(layer, tuple(group.index for group in groups)))
    return tuple(leaders)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UnsupportedModel(f"question profile: {message}")
