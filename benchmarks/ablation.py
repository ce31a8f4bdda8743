"""Turns every dial of the selection at the question, one at a time, and tables what the answers make of it.

    python benchmarks/ablation.py --out benchmarks/results/ablation

Generated development documents of all tasks are cached before their questions. The base is the model's stored profile;
every other row changes one thing of it, at equal bytes: leader keys and digests count. Everything runs on the model's
own arithmetic, outside the engine (offline/), so that what the service cannot do is measured too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from offline.chooser import Unmoved
from offline.development import FIRST_SEED, TASKS, draw
from offline.experiments import Experiment, experiments
from offline.measurement import Measurement
from offline.page import heading, table
from offline.record import record
from offline.result import Result
from offline.trial import Trial

from windowkv_service.model.loader import ModelOptions, load
from windowkv_service.selection import load_profile

GROUP_RATIO = 0.06  # where the groups of tasks differ most


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="builtin", help="'builtin' or a model directory")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--documents", type=int, default=5, help="per task")
    parser.add_argument("--questions", type=int, default=3, help="per document, where a task has so many")
    parser.add_argument("--tokens", type=int, nargs="+", default=[2000], help="per document")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first document")
    parser.add_argument("--window-size", type=int, default=16)
    parser.add_argument("--kept-ratios", type=float, nargs="+", default=[0.12, 0.06, 0.03])
    parser.add_argument("--only", nargs="+", help="experiments by key: leaders, passes, reselection, …")
    parser.add_argument("--out", type=Path, help="writes OUT.md and OUT.json")
    return parser.parse_args()


def baselines(measurement: Measurement) -> list[Result]:
    full = measurement.measure({"full cache": Unmoved(is_full=True)}, kept_ratios=[1.0])
    return full + measurement.measure({"published choice, before the question": Unmoved(is_full=False)})


def ablate(
    measurement: Measurement, base: Trial, chosen: Sequence[Experiment]
) -> Iterator[tuple[Experiment, list[Result]]]:
    """Every experiment with its results, the base's first. Those about the same tasks share their batches."""
    for tasks in dict.fromkeys(experiment.tasks for experiment in chosen):
        together = [experiment for experiment in chosen if experiment.tasks == tasks]
        trials = {
            f"{experiment.key}: {trial.name}": trial for experiment in together for trial in experiment.trials
        }
        of_base, *others = measurement.measure({base.name: base, **trials}, tasks=tasks)
        for result, trial in zip(others, trials.values(), strict=True):
            result.name = trial.name
        for experiment in together:
            yield experiment, [of_base, *others[: len(experiment.trials)]]
            others = others[len(experiment.trials) :]


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    began = time.process_time()
    model = load(ModelOptions(args.model, args.device, "auto", args.window_size, None))
    drawn = list(draw(args.tasks, args.documents, args.questions, args.tokens, args.seed))
    measurement = Measurement(model, drawn, args.kept_ratios)
    base = Trial("base", load_profile(model.directory, model.layout))
    chosen = [
        each
        for each in experiments(base, model.layout)
        if (args.only is None or each.key in args.only)
        and (each.tasks is None or set(each.tasks) & set(args.tasks))
    ]
    fixed = baselines(measurement)
    done = list(ablate(measurement, base, chosen))
    ratio = GROUP_RATIO if GROUP_RATIO in args.kept_ratios else args.kept_ratios[0]
    page = heading("What each dial of the selection at the question does", args, measurement, began)
    for number, (experiment, results) in enumerate(done):
        rows = [*fixed, *results] if number == 0 else results
        about = f"\n\nTasks: {', '.join(results[0].tasks)}." if experiment.tasks else ""
        page += f"\n## {experiment.question}{about}\n\n{table(rows, results[0], ratio)}\n"
    print(page)
    if args.out:
        args.out.with_suffix(".md").write_text(page)
        records = {experiment.key: [record(result) for result in results] for experiment, results in done}
        records |= {"baselines": [record(result) for result in fixed]}
        args.out.with_suffix(".json").write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
