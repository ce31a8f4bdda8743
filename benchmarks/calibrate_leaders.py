"""Finds which layers lead at the question, and writes the model's windowkv_profile.json.

    python benchmarks/calibrate_leaders.py --model builtin --write

Generated development documents of all tasks are cached before their questions. Every candidate profile chooses windows
for every question, and is judged by the words its answers hold, at equal bytes: the leader index counts. First the
leaders are chosen, then one option after the other. The documents are of the training split and of seeds of their own:
the reporting ones are never looked at.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from offline.calibration import at_its_sharpest, best_leaders, tune
from offline.candidates import leader_candidates, leaders_of
from offline.chooser import Unmoved
from offline.development import FIRST_SEED, TASKS, draw
from offline.measurement import Measurement
from offline.page import heading, table
from offline.record import record
from offline.trial import Trial

from windowkv_service.model.loader import ModelOptions, load
from windowkv_service.selection import save_profile


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="builtin", help="'builtin' or a model directory")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--documents", type=int, default=3, help="per task and length")
    parser.add_argument("--questions", type=int, default=3, help="per document, where a task has so many")
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=[1000, 4000], help="per document, as many of each length"
    )
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first document")
    parser.add_argument("--window-size", type=int, default=16)
    parser.add_argument("--kept-ratios", type=float, nargs="+", default=[0.12, 0.06, 0.03])
    parser.add_argument("--write", action="store_true", help="write the profile beside the model")
    parser.add_argument("--out", type=Path, help="writes OUT.md and OUT.json")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    began = time.process_time()
    model = load(ModelOptions(args.model, args.device, "auto", args.window_size, None))
    drawn = list(draw(args.tasks, args.documents, args.questions, args.tokens, args.seed))
    measurement = Measurement(model, drawn, args.kept_ratios)
    (full,) = measurement.measure({"full cache": Unmoved(is_full=True)}, kept_ratios=[1.0])
    trials = {
        f"{name}: {leaders_of(profile)}": Trial(name, at_its_sharpest(profile))
        for name, profile in leader_candidates(model.layout)
    }
    rows = measurement.measure(trials)
    rows += tune(measurement, best_leaders(rows, full))
    page = heading("Which layers lead, and how their questions choose", args, measurement, began)
    page += f"\n{table([full, *rows], rows[-1], args.kept_ratios[0])}\n"
    print(page)
    kept = rows[-1].chooser
    assert isinstance(kept, Trial)
    if args.write:
        print(f"wrote {save_profile(model.directory, kept.profile, model.layout)}")
    if args.out:
        args.out.with_suffix(".md").write_text(page)
        args.out.with_suffix(".json").write_text(
            json.dumps([record(row) for row in [full, *rows]], indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
