"""How the fidelity that the service reports predicts right answers, and what promising one costs.

    python benchmarks/calibrate_fidelity.py --model builtin

Generated development documents of all tasks are cached before their questions, on a worker of this process, and asked
through gRPC: at every kept ratio; with `min_fidelity` at the smallest; and of the full cache. Every answer is one
pair of fidelity and score. The documents are of the training split and of seeds of their own: the reporting ones are
never looked at.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fidelity_table import Answered, render
from offline.development import FIRST_SEED, SPARE_TOKENS, TASKS, Drawn, draw, share_found

from windowkv_client import Cache, Client, Model, Usage
from windowkv_service.model.builtin.documents import Question, answer_text, question_suffix
from windowkv_service.quality.worker import worker
from windowkv_service.telemetry import configure_logging

RESULTS = Path(__file__).parent / "results" / "fidelity"
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Trials:
    """What every question is put to."""

    kept_ratios: Sequence[float]
    thresholds: Sequence[float]
    reselect_every: int | None

    @property
    def smallest(self) -> float:
        return min(self.kept_ratios)

    def of(self, client: Client, number: int, drawn: Drawn) -> Iterator[Answered]:
        """All answers to the questions of one document, whose caches are made and deleted here."""
        caches = {ratio: client.caches.create(drawn.document.text, kept_ratio=ratio) for ratio in self._all()}
        for place, question in enumerate(drawn.document.questions):
            expected = client.models.tokenize(answer_text(question.answer), add_special_tokens=False)
            max_tokens = len(expected) + SPARE_TOKENS
            promises = [(ratio, None) for ratio in caches] + [
                (self.smallest, each) for each in self.thresholds
            ]
            for ratio, min_fidelity in promises:
                usage, answer = self._ask(client, question, caches[ratio], max_tokens, min_fidelity)
                yield Answered(
                    drawn.task,
                    number,
                    place,
                    ratio,
                    min_fidelity,
                    usage.fidelity,
                    share_found(answer, question),
                    usage.device_bytes / caches[ratio].full_bytes,
                )
        for cache in caches.values():
            client.caches.delete(cache)

    def _all(self) -> tuple[float, ...]:
        return (1.0, *sorted(self.kept_ratios, reverse=True))

    def _ask(
        self,
        client: Client,
        question: Question,
        cache: Cache,
        max_tokens: int,
        min_fidelity: float | None,
    ) -> tuple[Usage, str]:
        options = {"min_fidelity": min_fidelity, "reselect_every": self.reselect_every}
        with client.generate(
            cache,
            question_suffix(question.text),
            max_tokens=max_tokens,
            stop="\n",
            temperature=0.0,
            **{name: value for name, value in options.items() if value is not None},  # type: ignore[arg-type]
        ) as answer:
            said = answer.read()
        assert answer.usage is not None, "a finished answer carries its usage"
        return answer.usage, said


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="builtin", help="'builtin' or a model directory")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--documents", type=int, default=4, help="per task")
    parser.add_argument("--questions", type=int, default=3, help="per document, where a task has so many")
    parser.add_argument("--tokens", type=int, default=2000, help="per document")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first document")
    parser.add_argument("--kept-ratios", type=float, nargs="+", default=[0.12, 0.06, 0.03])
    parser.add_argument("--thresholds", type=float, nargs="*", default=list(THRESHOLDS))
    parser.add_argument("--reselect-every", type=int, help="the model's own when left out")
    parser.add_argument("--seconds", type=float, default=600.0, help="no document is begun after so long")
    parser.add_argument("--out", type=Path, default=RESULTS, help="written with .json and .md added")
    return parser.parse_args()


def measure(client: Client, args: argparse.Namespace) -> tuple[list[Answered], int]:
    """The answers, and how many documents they are about. Documents of all tasks come in turns, so that an early end
    leaves as many of each."""
    trials = Trials(args.kept_ratios, args.thresholds, args.reselect_every)
    drawn = [
        each
        for number in range(args.documents)
        for each in draw(args.tasks, 1, args.questions, [args.tokens], args.seed + 1000 * number)
    ]
    answered: list[Answered] = []
    started = time.monotonic()
    for number, each in enumerate(drawn):
        if time.monotonic() - started > args.seconds:
            return answered, number
        answered += trials.of(client, number, each)
    return answered, len(drawn)


def main() -> None:
    args = arguments()
    configure_logging("error", "console")
    with worker(args.model, args.device) as target, Client(target) as client:
        model: Model = client.models.get()
        answered, num_documents = measure(client, args)
    facts = {
        "command": f"`{shlex.join(['python', 'benchmarks/calibrate_fidelity.py', *sys.argv[1:]])}`",
        "model": f"{model.name} ({model.digest[:12]}, windows of {model.window_size})",
        "documents": f"{num_documents} of {args.tokens} tokens, {len(set(args.tasks))} tasks",
        "seed": f"{args.seed} (development)",
        "re-selection": "the model's own" if args.reselect_every is None else args.reselect_every,
    }
    page = render(answered, facts)
    args.out.with_suffix(".md").write_text(page)
    record = {"facts": facts, "answers": [asdict(each) for each in answered]}
    args.out.with_suffix(".json").write_text(json.dumps(record) + "\n")
    print(page)


if __name__ == "__main__":
    main()
