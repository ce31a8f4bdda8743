"""Results as JSON."""

from __future__ import annotations

from dataclasses import asdict

from offline.result import Result


def record(result: Result) -> dict[str, object]:
    """Everything that a table was made from, but the single answers."""
    return {
        "choice": result.name,
        "chooser": asdict(result.chooser),  # type: ignore[call-overload]  # every chooser is a dataclass
        "kept_ratios": {f"{ratio:g}": _at(result, ratio) for ratio in result.ratios},
    }


def _at(result: Result, ratio: float) -> dict[str, object]:
    return {
        "score": round(result.score(ratio), 4),
        "tasks": {task: round(score, 4) for task, score in result.by_task(ratio).items()},
        "samples": {
            task: sum(map(len, documents.values())) for task, documents in result.tallies[ratio].items()
        },
        "fidelity": round(result.mean_of(ratio, lambda tally: tally.fidelity), 4),
        "size_ratio": round(result.mean_of(ratio, lambda tally: tally.size_ratio), 4),
        "listened": round(result.mean_of(ratio, lambda tally: tally.num_listened), 2),
        "answer_tokens": round(result.mean_of(ratio, lambda tally: tally.num_said), 2),
    }
