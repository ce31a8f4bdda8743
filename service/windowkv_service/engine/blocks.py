"""Bringing a prompt's windows onto the device: shared where they are, fetched from below, or computed again."""

from __future__ import annotations

from collections import Counter

from windowkv_service.cache.entry import PlacedBlock
from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.jobs import Fetched
from windowkv_service.domain.keys import Address
from windowkv_service.engine.fetch import FetchReport, fetch
from windowkv_service.engine.filling import Filling, Place
from windowkv_service.engine.prompt import Blocks, Prompt, Windows
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.task import Walk
from windowkv_service.kv.buffers import Staging


class Claim:
    """Blocks of one prompt's windows, retained for whoever holds the claim; release gives them back."""

    def __init__(self, resources: Resources, prompt: Prompt, windows: Windows) -> None:
        """Shares every block that the device has; the others are `missing` until they are filled."""
        self._device = resources.device
        self.prompt = prompt
        self.windows = windows
        self._ids: list[list[int | None]] = [
            [resources.device.share(group, prompt.address(group, window)) for window in windows[group.index]]
            for group in prompt.layout.groups
        ]

    @property
    def blocks(self) -> Blocks:
        assert not self.missing(), "a claim is read when all of it is there"
        return [[block_id for block_id in ids if block_id is not None] for ids in self._ids]

    def placed(self) -> tuple[tuple[PlacedBlock, ...], ...]:
        """The blocks with their arenas, for an entry that takes them over from the claim."""
        arenas = [self._device.arenas.arena_of(group) for group in self.prompt.layout.groups]
        return tuple(
            tuple((arena, one) for one in ids) for arena, ids in zip(arenas, self.blocks, strict=True)
        )

    def missing(self) -> list[Place]:
        return [
            (group, place)
            for group in self.prompt.layout.groups
            for place, block_id in enumerate(self._ids[group.index])
            if block_id is None
        ]

    def address(self, place: Place) -> Address:
        group, number = place
        return self.prompt.address(group, self.windows[group.index][number])

    def needs(self) -> Counter[int]:
        """Blocks for all that is missing, by arena."""
        return Counter(self._device.arenas.arena_of(group) for group, _ in self.missing())

    def take(self, resources: Resources) -> Walk[dict[int, list[int]]]:
        """Private blocks for all that is missing, by arena; they are the caller's until filled in."""
        return (yield from resources.take_blocks(self.needs()))

    def share(self, place: Place) -> bool:
        """Whether the device has the block by now; if so, take part in it."""
        group, number = place
        self._ids[group.index][number] = shared = self._device.share(group, self.address(place))
        return shared is not None

    def bind(self, place: Place, block_id: int) -> None:
        """A private block holds the place's bytes now: whoever looks for them finds it."""
        group, number = place
        self._device.pool(group).bind(block_id, self.address(place))
        self._ids[group.index][number] = block_id

    def fill_staged(self, staging: Staging, taken: dict[int, list[int]]) -> None:
        """Copy all that is missing from a prefilled prompt, one gather per group, as it would come up from below."""
        for group in self.prompt.layout.groups:
            numbers = [number for other, number in self.missing() if other is group]
            if not numbers:
                continue
            spare = taken[self._device.arenas.arena_of(group)]
            block_ids = [spare.pop() for _ in numbers]
            windows = [self.windows[group.index][number] for number in numbers]
            arena = self._device.arenas.of(group)
            self.prompt.gather(staging, group, windows, arena, block_ids)
            self.prompt.packing(group).round(arena, block_ids)
            for number, block_id in zip(numbers, block_ids, strict=True):
                self.bind((group, number), block_id)

    def release(self) -> None:
        for group, ids in zip(self.prompt.layout.groups, self._ids, strict=True):
            self._device.pool(group).release([block_id for block_id in ids if block_id is not None])
        self._ids = [[] for _ in self._ids]


def claim_staged(resources: Resources, prompt: Prompt, windows: Windows, staging: Staging) -> Walk[Claim]:
    """The windows of a prompt that has just been prefilled."""
    claim = Claim(resources, prompt, windows)
    try:
        taken = yield from claim.take(resources)
        claim.fill_staged(staging, taken)
    except BaseException:
        claim.release()
        raise
    return claim


def claim_stored(
    resources: Resources,
    prompt: Prompt,
    windows: Windows,
    report: FetchReport,
    ttl_s: float,
    former: Claim | None = None,
) -> Walk[Claim]:
    """The windows of a cached prompt, which lives ttl_s more: what the device lacks is fetched, once a former claim has
    been released. What is lost stays missing in the claim."""
    claim = Claim(resources, prompt, windows)
    try:
        if former is not None:
            former.release()
        if not resources.has_room(claim.needs()):
            claim.release()  # who waits for room holds none of what others wait for
            yield from resources.room_for(lambda: _unused(resources, prompt, windows))
            claim = Claim(resources, prompt, windows)
        if claim.missing():
            yield from _fetch_missing(resources, claim, report, ttl_s)
    except BaseException:
        claim.release()
        raise
    return claim


def _unused(resources: Resources, prompt: Prompt, windows: Windows) -> Counter[int]:
    """Blocks that a claim of the windows would have to have to itself, by arena: all but those that others use now."""
    needs: Counter[int] = Counter()
    for group in prompt.layout.groups:
        pool = resources.device.pool(group)
        found = [pool.find(prompt.address(group, window)) for window in windows[group.index]]
        used = sum(block_id is not None and pool.references(block_id) > 0 for block_id in found)
        needs[resources.device.arenas.arena_of(group)] += len(found) - used
    return needs


def _fetch_missing(resources: Resources, claim: Claim, report: FetchReport, ttl_s: float) -> Walk[None]:
    """Some come up while others are still being verified."""
    taken = yield from claim.take(resources)
    filling = Filling(resources, claim, taken)
    places = claim.missing()

    def begin(first: int, fetched: Fetched) -> None:
        some = zip(places[first:], fetched.found, strict=False)
        filling.begin({place: frame for place, frame in some if isinstance(frame, Frame)})

    try:
        addresses = [claim.address(place) for place in places]
        fetched = yield from fetch(resources, addresses, FrameKind.BLOCK, report, ttl_s, begin)
        report.lose(fetched)
        yield from filling.end()
    finally:
        filling.wait()
        for arena, spare in filling.spare.items():
            resources.device.pools[arena].release([*spare])
