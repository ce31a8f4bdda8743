"""WindowKV (arXiv 2503.17922): whole windows stay, chosen by the last tokens' attention, shared by layers.

What we do differently, by default or always:
- Windows are cut from token 0 over the whole prompt, so that they are the memory's blocks; the paper cuts
  them over the review context and keeps the last α tokens apart. The windows those lie in are kept whole.
- One list for all heads, as published, but chosen and stored on num_kv_heads heads, never on repeated ones.
- Lists are in order of position; the published code keeps them in order of score, which only single-token
  decode allows.
- The windows that always stay give way where a budget is small, for a budget holds. Those of the last α tokens leave
  room for one window that the score chooses, the last window giving way last: what was found is of no use to an answer
  that lost half of its question. The first window stays where all that always stay are at most half of what fits.
- Which task uses which statistic, the budget's shape, and whether α counts within the budget are options: the
  paper's text and its code disagree. The statistic carries its α: few observers with the mean, more with the
  top-p mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import windowkv_kernels as kernels
from windowkv_kernels import WindowScores
from windowkv_service.domain.requests import Task
from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection.base import Leader, Observation, WindowSelection
from windowkv_service.selection.budgets import BudgetShape, group_shares, last_share
from windowkv_service.selection.choice import choose, last_windows, num_fitting, window_bytes
from windowkv_service.selection.fidelity import measured
from windowkv_service.selection.task import SIGNAL_TOKENS, decide_task


@dataclass(frozen=True)
class WindowKV:
    """Frozen, so that requests share nothing but these choices.

    group_size: layers per selection group, whole storage groups joined up to it; None: each for itself.
    leaders: who chooses, for which groups; None: the first layer of each selection group, as published.
    task_mapping: paper: localization ranks by the mean, aggregation by the top-p mean; code: the reverse.
    top_p: how many of a window's largest token scores the top-p mean takes; None: half the window.
    mean_tokens, top_tokens: α with either statistic; so many last tokens vote, and their windows stay.
    vote_tokens: fewer voters than that, the very last ones; None: all α vote, as published.
    is_alpha_extra: the windows of the last α tokens come on top of the budget, which they then exceed.
    keep_first: window 0, the attention sink, always stays.
    budget_shape, top_fraction: see budgets.
    redistribute: budget that a group cannot use goes to the others.
    """

    chooses_tokens: ClassVar[bool] = False

    name: str = "windowkv"
    group_size: int | None = None
    leaders: tuple[Leader, ...] | None = None
    task_mapping: Literal["paper", "code"] = "paper"
    top_p: int | None = None
    mean_tokens: int = 16
    top_tokens: int = 32
    vote_tokens: int | None = None
    is_alpha_extra: bool = False
    keep_first: bool = True
    budget_shape: BudgetShape = "uniform"
    top_fraction: float = 0.55
    redistribute: bool = True

    @property
    def observation_size(self) -> int:
        return max(self.mean_tokens, self.top_tokens, SIGNAL_TOKENS)

    def observed_layers(self, layout: KVLayout) -> tuple[int, ...]:
        return tuple(leader.layer for leader in self.leaders_of(layout))

    def select(self, observation: Observation, *, budget_bytes: int, task: Task) -> WindowSelection:
        layout, num_tokens = observation.layout, observation.num_tokens
        leaders = self.leaders_of(layout)
        task = self._decide(observation, leaders) if task is Task.AUTO else task
        scores = self._score(observation, leaders, task)
        observed = last_windows(layout, num_tokens, self._alpha(task))
        if self.is_alpha_extra:
            budget_bytes += len(observed) * sum(window_bytes(layout, leader) for leader in leaders)
        windows = choose(
            layout,
            num_tokens,
            leaders,
            {layer: score.score for layer, score in scores.items()},
            forced=self._forced(observed, num_fitting(layout, num_tokens, leaders, budget_bytes)),
            shares=self.shares(layout, leaders),
            budget_bytes=budget_bytes,
            redistribute=self.redistribute,
        )
        masses = {layer: score.mass for layer, score in scores.items()}
        return measured(layout, leaders, masses, windows, task)

    def _forced(self, observed: Sequence[int], num_fitting: int) -> frozenset[int]:
        """What stays whatever its score: what the answer continues, then the attention sink."""
        last = list(reversed(observed))[: max(0, num_fitting - 1)]
        leaves_half = 2 * (len(last) + 1) <= num_fitting
        return frozenset([*last, 0] if self.keep_first and leaves_half else last)

    def leaders_of(self, layout: KVLayout) -> tuple[Leader, ...]:
        if self.leaders is not None:
            return self.leaders
        return tuple(
            Leader(layout.groups[groups[0]].layers[0], groups)
            for groups in join_groups(layout, self.group_size or 1)
        )

    def shares(self, layout: KVLayout, leaders: Sequence[Leader]) -> tuple[float, ...]:
        """Per selection group, first to last: its tokens per layer as a multiple of the mean."""
        sizes = [sum(len(layout.groups[group].layers) for group in leader.groups) for leader in leaders]
        last = last_share(self.budget_shape, max(sizes, default=1), self.top_fraction)
        return group_shares(len(leaders), last) if leaders else ()

    def _decide(self, observation: Observation, leaders: Sequence[Leader]) -> Task:
        scores = [_score_leader(observation, leader.layer, SIGNAL_TOKENS, None) for leader in leaders]
        return decide_task([score.score for score in scores])

    def _score(
        self, observation: Observation, leaders: Sequence[Leader], task: Task
    ) -> dict[int, WindowScores]:
        """Leader layer → what its attention says about the windows, with the statistic of the task."""
        top_p = None if self._uses_mean(task) else self.top_p or max(1, observation.layout.window_size // 2)
        num_voters = min(self._alpha(task), self.vote_tokens or self._alpha(task))
        return {
            leader.layer: _score_leader(observation, leader.layer, num_voters, top_p) for leader in leaders
        }

    def _uses_mean(self, task: Task) -> bool:
        return (task is Task.LOCALIZATION) == (self.task_mapping == "paper")

    def _alpha(self, task: Task) -> int:
        return self.mean_tokens if self._uses_mean(task) else self.top_tokens


def _score_leader(observation: Observation, layer: int, num_voters: int, top_p: int | None) -> WindowScores:
    queries = observation.queries[layer]
    return kernels.score_windows(
        queries,
        observation.keys(layer),
        num_observed=min(num_voters, queries.shape[1]),
        window_size=observation.layout.window_size,
        scale=observation.scales[layer],
        top_p=top_p,
        softcap=observation.softcaps.get(layer),
        lse=observation.lse.get(layer),
    )


def published(group_size: int | None = None) -> WindowKV:
    """As the paper's experiments ran: first layers lead, a pyramid, nothing forced but the last tokens.

    The slope is that of its runs with groups of 8 layers, whatever the groups are here: by the code's formula groups
    of one layer would leave the last one 1/14 of the mean, which nobody has run.
    """
    return WindowKV(
        name="windowkv-published",
        group_size=group_size,
        keep_first=False,
        budget_shape="linear",
        top_fraction=last_share("code", 8, 0.0),
        redistribute=False,
    )


def join_groups(layout: KVLayout, group_size: int) -> list[tuple[int, ...]]:
    """Consecutive selectable storage groups joined to selection groups of at most group_size layers, or one
    group."""
    joined: list[tuple[int, ...]] = []
    num_layers = 0
    for group in layout.selectable_groups:
        if joined and num_layers + len(group.layers) <= group_size:
            joined[-1] = (*joined[-1], group.index)
            num_layers += len(group.layers)
        else:
            joined.append((group.index,))
            num_layers = len(group.layers)
    return joined
