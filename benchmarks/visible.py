"""Why methods fail at a question that they see: which of its own tokens they keep, and which of the answer's.

    python benchmarks/visible.py --out benchmarks/results/visible.md

Generated development documents, each with one of its questions behind it, are compressed as one prompt; its last token
runs again over what is left, and the answer follows. Every method stands beside what was changed of it to find the
cause. None of the changed ones is served. Everything runs outside the engine (offline/).
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from offline.development import FIRST_SEED, SPARE_TOKENS, draw, share_found
from read_prompt import load_by_layer
from torch import Tensor
from visible_prompt import Kept, VisiblePrompt

from windowkv_service.model.builtin.documents import Question, answer_text, question_suffix
from windowkv_service.model.builtin.documents.lexicon import NAMES
from windowkv_service.model.loader import LoadedModel
from windowkv_service.selection import Method, Observation, TokenSelector, load_profile, selectors
from windowkv_service.selection.expected_attention import ExpectedAttention
from windowkv_service.selection.h2o import H2O
from windowkv_service.selection.pyramidinfer import PyramidInfer
from windowkv_service.selection.token_scorer import Protected, TokenScorer, protect

LAST = 32


@dataclass(frozen=True)
class KeepLast:
    """A scorer, and LAST tokens that stay with whatever it protects."""

    scorer: TokenScorer

    @property
    def observation_size(self) -> int:
        return self.scorer.observation_size

    def score(self, observation: Observation, layers: Sequence[int]) -> Mapping[int, Tensor]:
        return self.scorer.score(observation, layers)

    def protected(self, num_tokens: int, count: int) -> Protected:
        own = self.scorer.protected(num_tokens, count)
        return protect(num_tokens, count, first=own.num_first, last=max(own.num_last, LAST))


class Asked(NamedTuple):
    """fact, question: positions of the asked value in the document, and of the question but for its last token."""

    prompt: VisiblePrompt
    asked: Question
    fact: list[int]
    question: list[int]


class Seen(NamedTuple):
    """Of one answer: whether it was right, and which share of the question (in all layers) and of the asked value (in
    the leaders' layers) was kept."""

    score: float
    question: float
    fact: float


def methods(named: Mapping[str, Method], num_tokens: int) -> dict[str, Method]:
    """By what a row is called."""
    found: dict[str, Method] = {}
    for name in ("windowkv", "snapkv", "pyramidkv", "tova"):
        found[name] = named[name]
    for name in ("keydiff", "kvzip", "expected-attention"):
        selector = named[name]
        assert isinstance(selector, TokenSelector)
        found[name] = selector
        found[f"{name}, last {LAST} kept"] = replace(selector, scorer=KeepLast(selector.scorer))
    expected, h2o = named["expected-attention"], named["h2o"]
    assert isinstance(expected, TokenSelector) and isinstance(h2o, TokenSelector)
    for epsilon in (0.02, 0.0):
        of_last = KeepLast(ExpectedAttention(observation_size=LAST, epsilon=epsilon))
        name = f"expected-attention, last {LAST} kept, future like the last {LAST}, ε {epsilon:g}"
        found[name] = replace(expected, scorer=of_last)
    found["h2o"] = h2o
    found[f"h2o, attention of the last {LAST}"] = replace(h2o, scorer=H2O(observation_size=LAST))
    found["pyramidinfer"] = named["pyramidinfer"]
    found[f"pyramidinfer, the last {LAST} look back"] = PyramidInfer(recent_share=(LAST - 1) / num_tokens)
    found["random-tokens"] = named["random-tokens"]
    return found


def questions(model: LoadedModel, args: argparse.Namespace) -> Iterator[Asked]:
    tokenize = model.tokenizer.tokenize
    for drawn in draw(["single"], args.documents, args.questions, [args.tokens], args.seed):
        body = tokenize(drawn.document.text, add_special_tokens=True)
        for asked in drawn.document.questions:
            ids = [*body, *tokenize(question_suffix(asked.text), add_special_tokens=False)]
            fact = places(model, body, asked)
            yield Asked(VisiblePrompt(model, ids), asked, fact, list(range(len(body), len(ids) - 1)))


def places(model: LoadedModel, body: Sequence[int], asked: Question) -> list[int]:
    """Where the document states the asked value: the place nearest to the asked person's name."""
    name = next(word for word in re.findall(r"\w+", asked.text) if word in NAMES)
    named = _found(body, model.tokenizer.tokenize(f" {name}", add_special_tokens=False))
    value = model.tokenizer.tokenize(answer_text(asked.answer), add_special_tokens=False)
    start = min(_found(body, value), key=lambda place: min(abs(place - other) for other in named))
    return list(range(start, start + len(value)))


def _found(ids: Sequence[int], wanted: Sequence[int]) -> list[int]:
    size = len(wanted)
    return [place for place in range(len(ids) - size + 1) if list(ids[place : place + size]) == list(wanted)]


def look(model: LoadedModel, asked: Asked, kept: Kept, leaders: Sequence[int]) -> Seen:
    most = len(asked.fact) + SPARE_TOKENS
    said = model.tokenizer.detokenize(asked.prompt.answer(kept, most))
    every = range(model.num_layers)
    return Seen(
        share_found(said, asked.asked), kept.share(asked.question, every), kept.share(asked.fact, leaders)
    )


def render(found: Mapping[str, Mapping[float, Sequence[Seen]]], ratios: Sequence[float]) -> str:
    head = ["method", *(f"kept {ratio}: right" for ratio in ratios)]
    head += [f"{what} kept ({ratio})" for what in ("question", "answer") for ratio in ratios]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, by_ratio in found.items():
        cells = [
            f"{mean(getattr(seen, what) for seen in by_ratio[ratio]):{form}}"
            for what, form in (("score", ".0%"), ("question", ".2f"), ("fact", ".2f"))
            for ratio in ratios
        ]
        lines.append([name, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(args: argparse.Namespace, model: LoadedModel, count: int, table: str) -> str:
    command = " ".join(["python", "benchmarks/visible.py", *sys.argv[1:]])
    minutes = time.process_time() / 60
    return f"""# What methods keep of a question that they see

    {command}

{count} questions for single facts, each behind its document of {args.tokens:,} tokens, compressed together (training
split, seeds from {args.seed:,}). Model {model.name}, digest {model.digest.hex()[:16]}, float32, windows of
{args.window_size} tokens of one layer. {minutes:.0f} minutes of one core.

*question kept*: the share of the question's tokens, over all layers and KV heads, but for the very last one, which runs
again. *answer kept*: the share of the asked value's tokens in the document, in the layers that lead, where it is found.

{table}
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="builtin", help="'builtin' or a model directory")
    parser.add_argument("--documents", type=int, default=6)
    parser.add_argument("--questions", type=int, default=5, help="per document")
    parser.add_argument("--tokens", type=int, default=2000, help="per document")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first document")
    parser.add_argument("--window-size", type=int, default=16)
    parser.add_argument("--kept-ratios", type=float, nargs="+", default=[0.75, 0.12, 0.03])
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    model = load_by_layer(args.model, args.window_size)
    profile = load_profile(model.directory, model.layout)
    found: dict[str, dict[float, list[Seen]]] = {}
    count = 0
    for asked in questions(model, args):
        count += 1
        for name, method in methods(selectors(profile), args.tokens).items():
            for ratio in args.kept_ratios:
                seen = look(model, asked, asked.prompt.keep(method, ratio), profile.layers)
                found.setdefault(name, {}).setdefault(ratio, []).append(seen)
    text = page(args, model, count, render(found, args.kept_ratios))
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
