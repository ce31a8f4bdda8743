"""The comparison with kvpress as a page."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

PAGE = """# Token methods beside kvpress

`make compare-kvpress` ran the same fp32 weights and the same {num_tokens} token ids through kvpress and through our
scorers, per layer and KV head; blocks of one token make our budgets theirs to the token.

*agree* is the share of kept tokens that both keep, as a mean over the models; *lowest* is the least over models and
ratios; *score* is the largest difference of two scores, relative to the largest score, over all models. Rows without a
reason are the same formula with the same settings; the others say why they differ, and the method's file says more.
What stayed is told by the keys that are left: heads with equal keys are left out ({left_out}).

kvpress {kvpress} with torch {torch} and transformers {transformers}; ours with torch {our_torch} and transformers
{our_transformers}; {machine}, CPU. Models: {models}.

{table}
"""


def render(found: Mapping[str, Any]) -> str:
    rows = found["rows"]
    models = rows[0]["models"]
    ratios = list(next(iter(models.values()))["agreement"])
    head = ["method", "settings", *(f"agree, kept {ratio}" for ratio in ratios), "lowest", "score", "why"]
    lines = [_line(head), "|---" * len(head) + "|", *(_line(_cells(row, ratios)) for row in rows)]
    return PAGE.format(
        num_tokens=found["num_tokens"],
        **found["theirs"],
        our_torch=found["ours"]["torch"],
        our_transformers=found["ours"]["transformers"],
        machine=platform.machine(),
        models=", ".join(models),
        left_out=", ".join(f"{count} of the {name}" for name, count in found["left_out"].items() if count)
        or "none",
        table="\n".join(lines),
    )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(row: Mapping[str, Any], ratios: Sequence[str]) -> list[str]:
    per_model = row["models"].values()
    shares = [[each["agreement"][ratio] for each in per_model] for ratio in ratios]
    means = [f"{100 * sum(share) / len(share):.2f} %" for share in shares]
    lowest = f"{100 * min(min(share) for share in shares):.2f} %"
    differences = [each["score_difference"] for each in per_model if each["score_difference"] is not None]
    score = f"{max(differences):.0e}" if differences else "–"
    return [row["method"], row["setting"], *means, lowest, score, row["why"] or "–"]
