"""The experiments around one way to choose: each turns one dial of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from offline.candidates import leader_candidates, leaders_of
from offline.extra import Extra
from offline.trial import Trial
from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection import Leader, default_profile

#: One of each kind: enough for what can hardly matter.
FEW_TASKS = ("single", "niah_multikey_2", "niah_multiquery", "vt", "cwe", "qa_2")


@dataclass(frozen=True)
class Experiment:
    """question: what its table answers. trials: the base is not among them; every table begins with it.

    tasks: it is asked about these only; None: about all.
    """

    key: str
    question: str
    trials: tuple[Trial, ...]
    tasks: tuple[str, ...] | None = None


def experiments(base: Trial, layout: KVLayout) -> Iterator[Experiment]:
    yield Experiment("leaders", "Which layers lead?", tuple(_leaders(base, layout)))
    yield Experiment("passes", "How does a question listen before it answers?", _passes(base))
    yield Experiment(
        "reselection", "How often does an answer choose anew, and who votes?", _reselection(base)
    )
    yield Experiment("voters", "How many of the question's last tokens vote?", _voters(base))
    yield Experiment("windows", "How large are windows?", _windows(base, layout))
    yield Experiment("extra", "Does anything beside the best windows help?", _extra(base))
    yield Experiment("digests", "Do digests of the rest help?", _digests(base))
    yield Experiment("statistic", "What makes a window's score?", _statistic(base), FEW_TASKS)
    yield Experiment("heads", "How do a leader's heads agree?", _heads(base), FEW_TASKS)
    yield Experiment(
        "joining", "Do several leaders choose better together?", tuple(_joining(base, layout)), FEW_TASKS
    )
    yield Experiment("index", "How many bits per number of the leader keys?", _index(base), FEW_TASKS)
    yield Experiment("always", "What stays whatever its score?", _always(base), FEW_TASKS)
    yield Experiment("shape", "Do lower groups get more windows than upper ones?", _shape(base), FEW_TASKS)


def _leaders(base: Trial, layout: KVLayout) -> Iterator[Trial]:
    for name, profile in leader_candidates(layout):
        if profile.leaders != base.profile.leaders or name == "default rule":
            led = replace(base.profile, leaders=profile.leaders)
            yield replace(base, name=f"{name}: {leaders_of(led)}", profile=led)
    yield replace(base, name="no profile at all", profile=default_profile(layout))


def _passes(base: Trial) -> tuple[Trial, ...]:
    return (
        replace(base, name="none, chooses midway", passes=0, chooses_midway=True),
        replace(base, name="two passes", passes=2),
        replace(base, name="one, over the published choice", listens_over="published"),
    )


def _reselection(base: Trial) -> tuple[Trial, ...]:
    often = [
        _with_profile(base, f"every {every} tokens" if every else "never", reselect_every=every)
        for every in (0, 8, 4, 2, 1)
        if every != base.reselect_every
    ]
    always = _with_profile(base, "every token", reselect_every=1)
    many = [replace(always, name=f"every token, {voters} vote", recent=voters) for voters in (2, 4, 8)]
    many += [replace(trial, name=f"{trial.name}, maximum", takes_most=True) for trial in many]
    midway = replace(always, name="every token, midway", passes=0, chooses_midway=True)
    return (*often, *many, midway)


def _voters(base: Trial) -> tuple[Trial, ...]:
    counts = [
        _with_profile(base, f"{count} voters" if count > 1 else "1 voter", vote_tokens=count)
        for count in (1, 2, 4, 8, 16)
    ]
    most = [replace(trial, name=f"{trial.name}, maximum", takes_most=True) for trial in counts[2:]]
    return (*(trial for trial in counts if trial.vote_tokens != base.vote_tokens), *most)


def _statistic(base: Trial) -> tuple[Trial, ...]:
    tops = [
        _with_profile(base, "mean" if top_p is None else f"mean of the top {top_p}", top_p=top_p)
        for top_p in (None, 1, 2, 4, 8)
        if top_p != base.profile.top_p
    ]
    return (*tops, replace(base, name="mean + top 1", adds_top=True))


def _heads(base: Trial) -> tuple[Trial, ...]:
    return (
        replace(base, name="maximum over heads", heads="max"),
        replace(base, name="heads weighted by peakedness", heads="peaked"),
        replace(base, name="a list per KV head", heads="per_kv_head"),
    )


def _joining(base: Trial, layout: KVLayout) -> Iterator[Trial]:
    """The base's first leader and a neighbour, and all layers, with votes for everything."""
    groups = tuple(group.index for group in layout.selectable_groups)
    layers = [layer for group in layout.selectable_groups for layer in group.layers]
    first = base.profile.layers[0]
    neighbours = [layer for layer in (first - 1, first + 1) if layer in layers]
    for others in [*([layer] for layer in neighbours), [layer for layer in layers if layer != first]]:
        # Who leads which groups does not matter where all votes are joined: each leader has to lead something.
        led = [Leader(first, groups[len(others) :])]
        led += [Leader(layer, (group,)) for layer, group in zip(others, groups, strict=False)]
        profile = replace(base.profile, leaders=tuple(led))
        who = "all layers" if len(others) + 1 == len(layers) else f"layers {leaders_of(profile)}"
        for joining in ("mean", "max", "peaked"):
            yield replace(base, name=f"{who}, {joining}", profile=profile, joining=joining)


def _index(base: Trial) -> tuple[Trial, ...]:
    return tuple(
        replace(base, name=f"{bits} bits", index_bits=bits)
        for bits in (32, 16, 8, 4, 2)
        if bits != base.profile.index_bits
    )


def _windows(base: Trial, layout: KVLayout) -> tuple[Trial, ...]:
    sizes = [size for size in (8, 16, 32, 64) if size != layout.window_size]
    return tuple(replace(base, name=f"windows of {size}", window_size=size) for size in sizes)


def _extra(base: Trial) -> tuple[Trial, ...]:
    tried: list[tuple[Extra, float]] = [
        ("best tokens", 0.25),
        ("best tokens", 0.5),
        ("best tokens", 1.0),
        ("spread windows", 0.5),
        ("weighted windows", 0.25),
        ("weighted windows", 0.5),
    ]
    return tuple(
        replace(base, name=f"{share:.0%} of the budget: {extra}", extra=extra, extra_share=share)
        for extra, share in tried
    )


def _always(base: Trial) -> tuple[Trial, ...]:
    names = {
        (True, 1): "first and last window",
        (True, 0): "first window",
        (False, 1): "last window",
        (False, 0): "nothing",
        (True, 2): "first and two last windows",
    }
    now = (base.profile.keep_first, base.profile.keep_last_windows)
    return tuple(
        _with_profile(base, name, keep_first=first, keep_last_windows=last)
        for (first, last), name in names.items()
        if (first, last) != now
    )


def _shape(base: Trial) -> tuple[Trial, ...]:
    return tuple(
        replace(base, name=f"last group {share:g} × the mean", last_share=share) for share in (0.5, 1.5)
    )


def _digests(base: Trial) -> tuple[Trial, ...]:
    return tuple(
        replace(base, name=f"one per {size} tokens", digest_tokens=size) for size in (16, 32, 64, 128)
    )


def _with_profile(base: Trial, name: str, **changes: Any) -> Trial:
    return replace(base, name=name, profile=replace(base.profile, **changes))
