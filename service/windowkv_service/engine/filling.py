"""Fetched blocks on their way into a claim, beside the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from windowkv_service.cache.frame import Frame
from windowkv_service.engine.prompt import Prompt
from windowkv_service.engine.resources import Resources, landed
from windowkv_service.engine.task import Walk
from windowkv_service.kv.copies import Landing
from windowkv_service.kv.layout import KVGroup
from windowkv_service.kv.packing import Arrival

Place = tuple[KVGroup, int]  # a group and the place of a window in its list


class Fillable(Protocol):
    """What is filled: a claim."""

    @property
    def prompt(self) -> Prompt: ...
    def share(self, place: Place) -> bool: ...
    def bind(self, place: Place, block_id: int) -> None: ...


@dataclass(frozen=True)
class _Part:
    landing: Landing
    block_ids: Mapping[Place, int]
    arrivals: Sequence[Arrival]


class Filling:
    """taken: private blocks for all that may come, by arena. spare: those of them that the claim has not got, in the
    order of its keys."""

    def __init__(self, resources: Resources, claim: Fillable, taken: Mapping[int, Sequence[int]]) -> None:
        self._resources = resources
        self._claim = claim
        self._parts: list[_Part] = []
        self._free = {arena: iter(block_ids) for arena, block_ids in taken.items()}
        self.spare = {arena: dict.fromkeys(block_ids) for arena, block_ids in taken.items()}

    def begin(self, frames: Mapping[Place, Frame]) -> None:
        """Send some. What does not fit its place stays missing; what somebody else has fetched meanwhile is shared."""
        coming = [
            place
            for place, frame in frames.items()
            if not self._claim.share(place) and self._fits(place, frame)
        ]
        block_ids = {place: next(self._free[self._arena(place[0])]) for place in coming}
        arrivals = list(self._arrivals(block_ids))
        targets = [target for arrival in arrivals for target in arrival.targets]
        landing = self._resources.copies.into([frames[place].payload for place in coming], targets)
        self._parts.append(_Part(landing, block_ids, arrivals))

    def end(self) -> Walk[None]:
        """When they have landed they are the claim's, and whoever looks for them finds them."""
        for part in self._parts:
            yield from landed(part.landing)
            for arrival in part.arrivals:
                arrival.unpack()
            for place, block_id in part.block_ids.items():
                if not self._claim.share(place):
                    self._claim.bind(place, block_id)
                    del self.spare[self._arena(place[0])][block_id]

    def wait(self) -> None:
        """Until nothing is under way: the memory may be others' after that."""
        for part in self._parts:
            part.landing.wait()

    def _arrivals(self, block_ids: Mapping[Place, int]) -> Iterator[Arrival]:
        """In this order, those of a group together."""
        for group, places in groupby(block_ids, key=lambda place: place[0]):
            arena = self._resources.device.arenas.of(group)
            yield self._claim.prompt.packing(group).arrive(arena, [block_ids[place] for place in places])

    def _fits(self, place: Place, frame: Frame) -> bool:
        group = place[0]
        return self._resources.device.fits(group, self._claim.prompt.packing(group), frame)

    def _arena(self, group: KVGroup) -> int:
        return self._resources.device.arenas.arena_of(group)
