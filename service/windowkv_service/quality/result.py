"""One measured number, as it is reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from statistics import fmean
from typing import Any

from windowkv_service.quality.arm import Arm
from windowkv_service.quality.asking import Reply
from windowkv_service.quality.interval import bootstrap
from windowkv_service.quality.suites import Task

OWN_COLUMNS = ("entry_bytes_ratio", "answer_bytes_ratio")  # of the files, not of the line of JSON


@dataclass(frozen=True)
class Result:
    """A task under an arm. score, ci_low, ci_high: percent of samples answers that were right, and its 95 % confidence
    interval. Ratios are of the full cache's bytes, means over the answers; see asking.Reply for what is counted.

    stored_bytes_ratio: all that the device held of the prompt while answering.
    entry_bytes_ratio: what the cache held between questions. answer_bytes_ratio: the same
        while answering, the question's and the answer's own tokens included.
    """

    suite_task: str
    method: str
    question: str
    kept_ratio: float
    stored_bytes_ratio: float
    score: float
    ci_low: float
    ci_high: float
    samples: int
    entry_bytes_ratio: float
    answer_bytes_ratio: float

    @property
    def suite(self) -> str:
        return self.suite_task.partition("/")[0]

    def public(self) -> dict[str, Any]:
        """What the command's line of JSON says."""
        return {name: value for name, value in asdict(self).items() if name not in OWN_COLUMNS}


COLUMNS = tuple(field.name for field in fields(Result))


def summarise(task: Task, arm: Arm, documents: Sequence[Sequence[Reply]]) -> Result:
    """documents: per document, its replies."""
    replies = [reply for document in documents for reply in document]
    scores = [[reply.score for reply in document] for document in documents]
    low, high = bootstrap(scores)
    return Result(
        suite_task=task.name,
        method=arm.method.name,
        question=str(arm.question),
        kept_ratio=arm.kept_ratio,
        stored_bytes_ratio=_share(replies, [reply.device_bytes for reply in replies]),
        score=round(fmean(reply.score for reply in replies), 2),
        ci_low=round(low, 2),
        ci_high=round(high, 2),
        samples=len(replies),
        entry_bytes_ratio=_share(replies, [reply.entry_bytes for reply in replies]),
        answer_bytes_ratio=_share(replies, [reply.device_bytes + reply.tail_bytes for reply in replies]),
    )


def _share(replies: Sequence[Reply], counted: Sequence[int]) -> float:
    ratios = [one / reply.full_bytes for one, reply in zip(counted, replies, strict=True)]
    return round(fmean(ratios), 4)
