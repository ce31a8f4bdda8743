"""An answer's tokens → its text: nothing half a character wide, nothing past a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Detokenizer(Protocol):
    def push(self, token_id: int) -> str: ...


class AnswerText:
    """Holds back what may yet turn out to be the beginning of a stop string."""

    def __init__(self, detokenizer: Detokenizer, stops: Sequence[str]) -> None:
        self._detokenizer = detokenizer
        self._stops = tuple(stops)
        self._held = ""
        self.is_stopped = False

    def push(self, token_id: int, *, may_stop: bool = True) -> str:
        """The text that token_id makes certain. After a stop string, is_stopped, and nothing more comes. What is pushed
        while it may not stop is part of no stop string."""
        self._held += self._detokenizer.push(token_id)
        if not may_stop:
            return self.finish()
        ends = [end for end in map(self._held.find, self._stops) if end >= 0]
        if ends:
            self.is_stopped = True
            certain, self._held = self._held[: min(ends)], ""
            return certain
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return certain

    def finish(self) -> str:
        """What was held back, now that no more can come."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of text that begins stop."""
    return next(
        (size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0
    )
