"""The answers of a run as they come in, in memory and in a file, so that an interrupted run can go on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from windowkv_service.quality.arm import Arm
from windowkv_service.quality.reply import Reply

FILE, EVERY_FILE = "answers.jsonl", "answers*.jsonl"


class Place(NamedTuple):
    """What is asked at once: one case of a task under one arm."""

    task: str
    number: int
    method: str
    kept_ratio: float
    question: str

    @classmethod
    def of(cls, task: str, number: int, arm: Arm) -> Place:
        return cls(task, number, arm.method.name, arm.kept_ratio, str(arm.question))


@dataclass
class Answers:
    """Replies by where they were given. file: takes a line for each place."""

    file: TextIO | None = None
    _replies: dict[Place, Sequence[Reply]] = field(default_factory=dict)

    def add(self, place: Place, replies: Sequence[Reply]) -> None:
        self._replies[place] = replies
        if self.file is not None:
            line = {"place": place, "replies": [asdict(reply) for reply in replies]}
            self.file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self.file.flush()

    def __contains__(self, place: Place) -> bool:
        return place in self._replies

    def __len__(self) -> int:
        return len(self._replies)

    def under(self, task: str, arm: Arm) -> list[Sequence[Reply]]:
        """Per document asked so far, its replies, in the order of the documents."""
        wanted = Place.of(task, 0, arm)
        found = [place for place in self._replies if place._replace(number=0) == wanted]
        return [self._replies[place] for place in sorted(found)]


class OtherRun(ValueError):
    """The answers in a folder are of a run of another kind."""


@contextmanager
def recorded(folder: Path, run: Mapping[str, object], *, is_resumed: bool) -> Iterator[Answers]:
    """Answers that are written to the folder, after those that runs of the same kind left there, if it is resumed: all
    of its answers*.jsonl, so that runs side by side can be joined.

    run: what must be the same for answers to belong together. Raises OtherRun.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, head = folder / FILE, json.dumps({"run": dict(run)}, ensure_ascii=False)
    earlier = _read(sorted(folder.glob(EVERY_FILE)), head) if is_resumed else {}
    whole = path.with_suffix(".new")  # the old file stays until the new one holds as much
    with whole.open("w", encoding="utf-8") as file:
        file.write(head + "\n")
        answers = Answers(file)
        for place, replies in earlier.items():
            answers.add(place, replies)
        whole.replace(path)
        yield answers


def _read(paths: Iterable[Path], head: str) -> dict[Place, list[Reply]]:
    found: dict[Place, list[Reply]] = {}
    for path in paths:
        first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        if first != head:
            raise OtherRun(f"{path} is of another run; this one is {head}, that one {first}")
        found |= dict(_answers(json.loads(line)) for line in lines if _is_whole(line))
    return found


def _is_whole(line: str) -> bool:
    """The last line may have been cut short."""
    return line.endswith("}]}")


def _answers(line: dict[str, Any]) -> tuple[Place, list[Reply]]:
    return Place(*line["place"]), [Reply(**reply) for reply in line["replies"]]
