"""Finds which layers lead at the question, and writes the model's windowkv_profile.json.

    python benchmarks/calibrate_leaders.py --model builtin --write

Generated development documents are cached before their questions. Every candidate profile chooses windows for every
question (first pass over the published choice, second pass over its own), and is judged by exact answers, at equal
bytes: the leader index counts. First the leaders are chosen, then one option after the other. The documents are of the
training split and of seeds of their own: the reporting ones are never looked at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from leader_calibration import Calibration, Row, best_leaders, leader_candidates, tune

from windowkv_service.model.loader import ModelOptions, load
from windowkv_service.selection import save_profile


def print_table(rows: Sequence[Row], calibration: Calibration, num_tokens: int) -> None:
    ratios = calibration.kept_ratios
    print(
        "| choice | leaders | index share | "
        + " | ".join(f"kept {ratio:.2f}" for ratio in ratios)
        + " | fidelity |"
    )
    print("|---" * (4 + len(ratios)) + "|")
    for row in rows:
        leaders, share = "–", 0.0
        if row.profile is not None:
            leaders = " ".join(map(str, row.profile.layers))
            share = row.profile.index_bytes(calibration.layout, num_tokens) / calibration.layout.full_bytes(
                num_tokens
            )
        tallies = [row.tallies.get(ratio, row.tallies.get(1.0)) for ratio in ratios]
        scores = " | ".join(f"{tally.score:.3f}" for tally in tallies if tally is not None)
        print(f"| {row.name} | {leaders} | {share:.3f} | {scores} | {row.fidelity:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="builtin", help="'builtin' or a model directory")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--questions", type=int, default=10, help="per document")
    parser.add_argument("--tokens", type=int, default=2000, help="per document")
    parser.add_argument("--window-size", type=int, default=16)
    parser.add_argument("--kept-ratios", type=float, nargs="+", default=[0.12, 0.06, 0.03])
    parser.add_argument("--write", action="store_true", help="write the profile beside the model")
    parser.add_argument("--json", type=Path, help="write all rows there too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load(ModelOptions(args.model, args.device, "auto", args.window_size, None))
    calibration = Calibration(model, args.documents, args.questions, args.tokens, args.kept_ratios)
    rows = [calibration.measure(name, profile) for name, profile in leader_candidates(model.layout)]
    rows += tune(calibration, best_leaders(rows, calibration.full))
    rows = [calibration.full, calibration.published, *rows]
    print_table(rows, calibration, args.tokens)
    profile = rows[-1].profile
    assert profile is not None
    if args.write:
        print(f"wrote {save_profile(model.directory, profile, model.layout)}")
    if args.json:
        args.json.write_text(json.dumps([_record(row) for row in rows], indent=1) + "\n")


def _record(row: Row) -> dict[str, object]:
    layers = None if row.profile is None else row.profile.layers
    by_ratio = {
        f"{ratio:g}": {"score": tally.score, "fidelity": tally.fidelity, "asked": tally.num_asked}
        for ratio, tally in row.tallies.items()
    }
    return {"choice": row.name, "leaders": layers, "kept_ratios": by_ratio}


if __name__ == "__main__":
    main()
