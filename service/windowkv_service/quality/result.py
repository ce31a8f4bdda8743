"""One measured number, as it is reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import fmean
from typing import Any

from windowkv_service.quality.arm import Arm
from windowkv_service.quality.interval import bootstrap
from windowkv_service.quality.reply import Reply
from windowkv_service.quality.suites import suite_of

PUBLIC = (
    "suite_task", "method", "question", "kept_ratio", "stored_bytes_ratio", "score", "ci_low", "ci_high", "samples",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A task under an arm. score, ci_low, ci_high: mean of samples answers, 0 … 100, and its 95 % confidence interval.
    Ratios are of the full cache's bytes, means over the answers; see Reply for what is counted.

    stored_bytes_ratio: all that the device held of the prompt while answering. entry_bytes_ratio: what the cache held
    between questions. tail_bytes_ratio: tokens behind the cached prompt, in none of the others. fidelity: the service's
    own estimate. cut: answers to prompts that lost their middle.
    documents: how many the answers are about.
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
    documents: int
    entry_bytes_ratio: float
    tail_bytes_ratio: float
    fidelity: float
    cut: int

    @property
    def suite(self) -> str:
        return suite_of(self.suite_task)

    def public(self) -> dict[str, Any]:
        """What the command's line of JSON says."""
        every = asdict(self)
        return {name: every[name] for name in PUBLIC}


COLUMNS = tuple(field.name for field in fields(Result))


def summarise(task_name: str, arm: Arm, documents: Sequence[Sequence[Reply]]) -> Result:
    """documents: per document, its replies."""
    replies = [reply for document in documents for reply in document]
    low, high = bootstrap([[reply.score for reply in document] for document in documents])
    return Result(
        suite_task=task_name,
        method=arm.method.name,
        question=str(arm.question),
        kept_ratio=arm.kept_ratio,
        stored_bytes_ratio=_share(replies, lambda reply: reply.device_bytes),
        score=round(fmean(reply.score for reply in replies), 2),
        ci_low=round(low, 2),
        ci_high=round(high, 2),
        samples=len(replies),
        documents=len(documents),
        entry_bytes_ratio=_share(replies, lambda reply: reply.entry_bytes),
        tail_bytes_ratio=_share(replies, lambda reply: reply.tail_bytes),
        fidelity=round(fmean(reply.fidelity for reply in replies), 4),
        cut=sum(reply.is_cut for reply in replies),
    )


def _share(replies: Sequence[Reply], counted: Callable[[Reply], int]) -> float:
    return round(fmean(counted(reply) / reply.full_bytes for reply in replies), 4)
