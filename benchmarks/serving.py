"""What the service makes of a long document on a CPU, as ratios taken in one run (`make bench`).

A worker of its own runs as a child process on loopback with one torch thread; this process is its client, and runs
transformers' `generate` on the same model, document and question, in turns with the service, while the other rests.

    cold / warm        time to first token of a document nobody has seen (prefill included), against a later question
    service / generate tokens per second of one stream through gRPC, against generate with the full cache
    eight / one        tokens per second of eight concurrent streams on one document, against one
    device / full      bytes that the device holds while answering, cache and question, against the full cache
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from windowkv_client import Cache, Client
from windowkv_service.model.builtin.documents import SingleFact, Split, question_suffix
from windowkv_service.model.loader import BUILTIN, BUILTIN_DIRECTORY

RESULTS = Path(__file__).parent / "results"
NUM_STREAMS = 8


@dataclass(frozen=True)
class Streams:
    """Tokens per second, of one stream and of eight at once."""

    one: float
    eight: float


@dataclass(frozen=True)
class Round:
    """One round's measurements; seconds and tokens per second. once, every_token: how often an answer chooses its
    windows."""

    cold_s: float
    warm_s: float
    once: Streams
    every_token: Streams
    generate: float
    device_ratio: float


@dataclass(frozen=True)
class Case:
    """A document of so many tokens, and a question on it, as text and as tokens."""

    document: str
    question: str

    @classmethod
    def draw(cls, seed: int, num_tokens: int) -> Case:
        task = SingleFact(num_tokens, num_questions=1, num_facts=12 + num_tokens // 100)
        drawn = task.draw(random.Random(seed), Split.HELD_OUT)
        return cls(drawn.text, question_suffix(drawn.questions[0].text))


class Peer:
    """transformers' generate on the same model in this process, one thread."""

    def __init__(self, directory: Path) -> None:
        torch.set_num_threads(1)
        self._model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(directory)

    def tokens_per_s(self, case: Case, num_tokens: int) -> float:
        """Decode only: the time for num_tokens more, less the time for one."""
        one, many = self._seconds(case, 1), self._seconds(case, num_tokens + 1)
        return num_tokens / (many - one)

    def _seconds(self, case: Case, num_tokens: int) -> float:
        ids = torch.tensor([self._tokenizer(case.document + case.question).input_ids])
        started = time.perf_counter()
        with torch.inference_mode():
            self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=num_tokens,
                do_sample=False,
                eos_token_id=None,
            )
        return time.perf_counter() - started


@contextmanager
def worker(model: str) -> Iterator[str]:
    """A worker on a free loopback port; gives its address."""
    command = [sys.executable, "-m", "windowkv_service", "--listen", "127.0.0.1:0", "--model", model]
    command += ["--num-threads", "1", "--log-level", "error"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(timeout=60)


def first_token_s(client: Client, cache: Cache, question: str) -> float:
    started = time.perf_counter()
    with client.generate(cache, question, max_tokens=1, ignore_eos=True) as answer:
        next(iter(answer))
    return time.perf_counter() - started


def answering_bytes(client: Client, cache: Cache, question: str) -> int:
    with client.generate(cache, question, max_tokens=1, ignore_eos=True) as answer:
        answer.read()
    assert answer.usage is not None
    return answer.usage.device_bytes


def decode(client: Client, cache: Cache, question: str, num_tokens: int, reselect_every: int) -> float:
    """Seconds from the first token to the last."""
    with client.generate(
        cache, question, max_tokens=num_tokens, ignore_eos=True, reselect_every=reselect_every
    ) as answer:
        chunks = iter(answer)
        next(chunks)
        started = time.perf_counter()
        for _ in chunks:
            pass
    return time.perf_counter() - started


def streams(client: Client, cache: Cache, question: str, num_tokens: int, reselect_every: int) -> Streams:
    def one_answer(_: object = None) -> float:
        return decode(client, cache, question, num_tokens, reselect_every)

    one = (num_tokens - 1) / one_answer()
    started = time.perf_counter()
    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        list(pool.map(one_answer, range(NUM_STREAMS)))
    return Streams(one, NUM_STREAMS * num_tokens / (time.perf_counter() - started))


def measure(
    client: Client, peer: Peer, seed: int, num_tokens: int, num_generated: int, kept_ratio: float
) -> Round:
    case = Case.draw(seed, num_tokens)
    started = time.perf_counter()
    cache = client.caches.create(case.document, kept_ratio=kept_ratio)
    cold_s = time.perf_counter() - started + first_token_s(client, cache, case.question)
    device_ratio = answering_bytes(client, cache, case.question) / cache.full_bytes
    warm_s = statistics.median(first_token_s(client, cache, case.question) for _ in range(5))
    once = streams(client, cache, case.question, num_generated, 0)
    generate = peer.tokens_per_s(case, num_generated)
    every_token = streams(client, cache, case.question, num_generated, 1)
    return Round(cold_s, warm_s, once, every_token, generate, device_ratio)


def table(rounds: Sequence[Round]) -> list[tuple[str, float, float, float, str]]:
    """(what, median, lowest, highest, goal) of each ratio."""
    ratios = {
        "time to first token, cold / warm": ([one.cold_s / one.warm_s for one in rounds], "≥ 10"),
        "one stream choosing once / generate": ([each.once.one / each.generate for each in rounds], "≥ 1"),
        "eight streams / one, choosing once": ([each.once.eight / each.once.one for each in rounds], "≥ 3"),
        "one stream choosing at every token / generate": (
            [each.every_token.one / each.generate for each in rounds],
            "≥ 1",
        ),
        "eight streams / one, choosing at every token": (
            [each.every_token.eight / each.every_token.one for each in rounds],
            "≥ 3",
        ),
        "device bytes, answering / full": ([one.device_ratio for one in rounds], "≤ 0.13"),
    }
    return [
        (name, statistics.median(values), min(values), max(values), goal)
        for name, (values, goal) in ratios.items()
    ]


def render(rounds: Sequence[Round], facts: dict[str, object]) -> str:
    lines = [f"{key}: {value}  " for key, value in facts.items()]
    lines += ["", "| ratio | median | lowest | highest | goal |", "|---|---|---|---|---|"]
    lines += [
        f"| {what} | {mid:.3g} | {low:.3g} | {high:.3g} | {goal} |"
        for what, mid, low, high, goal in table(rounds)
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=BUILTIN, help="'builtin' or a model directory")
    parser.add_argument("--document-tokens", type=int, default=4000)
    parser.add_argument("--generated-tokens", type=int, default=128)
    parser.add_argument("--kept-ratio", type=float, default=0.12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "serving-cpu", help="written with .json and .md added"
    )
    args = parser.parse_args()
    peer = Peer(BUILTIN_DIRECTORY if args.model == BUILTIN else Path(args.model))
    with worker(args.model) as target, Client(target) as client:
        measure(client, peer, 0, args.document_tokens, 16, args.kept_ratio)  # warms both sides up
        rounds = [
            measure(client, peer, seed, args.document_tokens, args.generated_tokens, args.kept_ratio)
            for seed in range(1, args.rounds + 1)
        ]
    facts = {
        "document tokens": args.document_tokens,
        "generated tokens": args.generated_tokens,
        "kept ratio": args.kept_ratio,
        "rounds": args.rounds,
        "machine": f"{platform.machine()}, one torch thread",
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    raw = {"facts": facts, "rounds": [asdict(one) for one in rounds]}
    args.out.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(render(rounds, facts))
    sys.stdout.write(render(rounds, facts))


if __name__ == "__main__":
    main()
