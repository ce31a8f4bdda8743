"""One way to choose at the question, with every dial that the experiments turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from offline.choice import Choice, bytes_of, for_all_heads, tokens_of
from offline.document import CachedDocument
from offline.extra import Extra, add_extra
from offline.votes import HeadRule, by_window, combine_heads, peakedness, token_votes, window_scores
from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection import Leader, QuestionProfile, resident_windows
from windowkv_service.selection.base import Windows
from windowkv_service.selection.budgets import group_shares
from windowkv_service.selection.choice import choose
from windowkv_service.selection.fidelity import captured_mass

Joining = Literal["own", "mean", "max", "peaked"]


@dataclass(frozen=True)
class Trial:
    """A question profile as the service has it, and what only experiments have.

    recent: so many last tokens vote when an answer chooses anew; None: as in the service, those since the last choice,
        at most as many as of the question.
    takes_most: of several voters the one counts, for each token, who gives it most; else their mean.
    window_size: None: the layout's. index_bits: None: the profile's; 2, 16 and 32 are possible here.
    adds_top: score = the statistic + the largest token score. heads: how a leader's heads are combined.
    joining: own: every leader chooses for its team; else their votes are joined and choose for all layers.
    last_share: the last group's windows as a multiple of the mean, the others' on a line (budgets.py).
    extra, extra_share: what this share of the budget takes beside the best windows.
    digest_tokens: a digest per so many tokens stands for what is not read; 0: none.
    listens_over: what the first pass reads.
    """

    name: str
    profile: QuestionProfile
    passes: int = 1
    chooses_midway: bool = False
    recent: int | None = None
    takes_most: bool = False
    window_size: int | None = None
    index_bits: int | None = None
    adds_top: bool = False
    heads: HeadRule = "mean"
    joining: Joining = "own"
    last_share: float = 1.0
    extra: Extra = "best tokens"
    extra_share: float = 0.0
    digest_tokens: int = 0
    listens_over: Literal["resident", "published"] = "resident"

    @property
    def layers(self) -> tuple[int, ...]:
        return self.profile.layers

    @property
    def reselect_every(self) -> int:
        return self.profile.reselect_every

    @property
    def vote_tokens(self) -> int:
        return self.profile.vote_tokens

    @property
    def recent_voters(self) -> int:
        return self.recent or max(1, min(self.vote_tokens, self.reselect_every))

    def begin(self, document: CachedDocument, kept_ratio: float) -> Choice:
        budget = self._block_budget(document, kept_ratio)
        if self.listens_over == "published":
            windows: Sequence[Windows] = document.published(budget).windows
            return self._of_windows(document, document.layout, windows, 0.0)
        layout = self._layout(document)
        windows = resident_windows(self.profile, layout, document.num_tokens, budget)
        return self._of_windows(document, layout, windows, 0.0)

    def choose(self, document: CachedDocument, kept_ratio: float, queries: Mapping[int, Tensor]) -> Choice:
        by_head = self._votes(document, queries)
        num_lists = document.layout.num_kv_heads if self.heads == "per_kv_head" else 1
        chosen = [self._choose(document, kept_ratio, by_head, number) for number in range(num_lists)]
        if len(chosen) == 1:
            return chosen[0]
        pad = torch.nn.utils.rnn.pad_sequence  # the last window may be a short one
        tokens = [
            pad([head.tokens[group][0] for head in chosen], batch_first=True, padding_value=-1)
            for group in range(len(chosen[0].tokens))
        ]
        fidelity = sum(head.fidelity for head in chosen) / len(chosen)
        return replace(chosen[0], tokens=tokens, fidelity=fidelity)

    def _votes(self, document: CachedDocument, queries: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Leader → its heads' votes for tokens, [H, n]."""
        model = document.model
        by_head = {
            layer: token_votes(
                queries[layer],
                document.stored_keys(layer, self._bits).keys,
                model.scales[layer],
                model.softcap,
                takes_most=self.takes_most,
            )
            for layer in self.layers
        }
        if self.joining != "own":
            by_head = dict.fromkeys(self.layers, _join(list(by_head.values()), self.joining))
        return by_head

    def _choose(
        self, document: CachedDocument, kept_ratio: float, by_head: Mapping[int, Tensor], number: int
    ) -> Choice:
        """The number-th list, from what the heads of each leader say."""
        layout, num_tokens = self._layout(document), document.num_tokens
        budget = self._block_budget(document, kept_ratio)
        leaders, shares = self._claims(layout)
        votes = {layer: self._combine(said, said, layout)[number] for layer, said in by_head.items()}
        resident = resident_windows(self.profile, layout, num_tokens, budget)
        windows = choose(
            layout,
            num_tokens,
            leaders,
            {layer: self._score(said, layout)[number] for layer, said in by_head.items()},
            forced=frozenset(resident[leaders[0].groups[0]]),
            shares=shares,
            budget_bytes=int((1.0 - self.extra_share) * budget),
        )
        masses = {layer: by_window(vote, layout.window_size).sum(-1) for layer, vote in votes.items()}
        fidelity = captured_mass(layout, leaders, masses, windows)
        choice = self._of_windows(document, layout, windows, fidelity)
        return choice if not self.extra_share else self._with_extra(document, choice, budget, votes)

    def _score(self, votes: Tensor, layout: KVLayout) -> Tensor:
        """Votes [H, n] → scores [1, num_windows], or [Hkv, num_windows]."""
        scores = window_scores(votes, layout.window_size, self.profile.top_p, adds_top=self.adds_top)
        return self._combine(scores, votes, layout)

    def _combine(self, said: Tensor, votes: Tensor, layout: KVLayout) -> Tensor:
        return combine_heads(said, votes, self.heads, layout.num_kv_heads)

    def _of_windows(
        self, document: CachedDocument, layout: KVLayout, windows: Sequence[Windows], fidelity: float
    ) -> Choice:
        tokens = [for_all_heads(tokens_of(chosen, layout, document.num_tokens), layout) for chosen in windows]
        size_bytes = bytes_of(windows, layout) + self._overhead(document)
        choice = Choice(tokens, fidelity, size_bytes)
        return choice.with_digests(document.digests(self.digest_tokens)) if self.digest_tokens else choice

    def _with_extra(
        self, document: CachedDocument, choice: Choice, budget: int, votes: Mapping[int, Tensor]
    ) -> Choice:
        """What the windows left of the budget goes to others, alike in all led groups."""
        layout = self._layout(document)
        count = (budget + self._overhead(document) - choice.size_bytes) // layout.bytes_per_token
        tokens, size_bytes = list(choice.tokens), choice.size_bytes
        weights = [torch.zeros(each.shape[1]) for each in tokens]
        for leader in self.profile.leaders:
            for group in leader.groups:
                chosen = tokens[group][0]
                more = add_extra(self.extra, chosen, votes[leader.layer], count, layout.window_size)
                tokens[group], weights[group] = for_all_heads(more.positions, layout), more.weights
                per_token = layout.block_bytes(layout.groups[group]) // layout.window_size
                size_bytes += (len(more.positions) - len(chosen)) * per_token
        return replace(choice, tokens=tokens, weights=weights, size_bytes=size_bytes)

    def _claims(self, layout: KVLayout) -> tuple[tuple[Leader, ...], tuple[float, ...]]:
        """Who chooses how much: where groups get unequal shares, each claims for itself."""
        if self.last_share == 1.0:
            return self.profile.leaders, (1.0,) * len(self.profile.leaders)
        led = sorted((group, leader.layer) for leader in self.profile.leaders for group in leader.groups)
        leaders = tuple(Leader(layer, (group,)) for group, layer in led)
        return leaders, group_shares(len(leaders), self.last_share)

    def _block_budget(self, document: CachedDocument, kept_ratio: float) -> int:
        return int(kept_ratio * document.full_bytes) - self._overhead(document)

    def _overhead(self, document: CachedDocument) -> int:
        """Bytes of the leader index and of digests."""
        index = sum(document.stored_keys(layer, self._bits).size_bytes for layer in self.layers)
        return index + (document.digests(self.digest_tokens).size_bytes if self.digest_tokens else 0)

    def _layout(self, document: CachedDocument) -> KVLayout:
        size = self.window_size
        return document.layout if size is None else replace(document.layout, window_size=size)

    @property
    def _bits(self) -> int:
        return self.index_bits or self.profile.index_bits


def _join(votes: Sequence[Tensor], joining: Joining) -> Tensor:
    """Several leaders' votes, each [H, n] → one."""
    stacked = torch.stack(list(votes))  # [num_leaders, H, n]
    if joining == "max":
        return stacked.amax(0)
    if joining == "mean":
        return stacked.mean(0)
    weights = torch.stack([peakedness(vote).mean() for vote in votes])
    return (weights[:, None, None] * stacked).sum(0) / weights.sum()
