"""What is compared with kvpress: a press with its options, our selector, and why the two may differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokenizers import pre_tokenizers

from windowkv_service.selection import Selector, TokenSelector, token_selectors
from windowkv_service.selection.expected_attention import ExpectedAttention
from windowkv_service.selection.h2o import H2O
from windowkv_service.selection.kvzip import KVzip
from windowkv_service.selection.pyramidkv import Pyramid
from windowkv_service.selection.snapkv import SnapKV
from windowkv_service.selection.streamingllm import StreamingLLM

OURS = token_selectors()
ALPHA = 0.2  # AdaKV's floor
# What kvpress says before a chunk, in the bytes of the models' tokenizer.
FIRST = "\n\nRepeat the previous context exactly."
NEXT = "\n\nRepeat the part of the previous context exactly, starting with"
LAST = "\n"


def byte_ids(text: str) -> tuple[int, ...]:
    """As press_models' tokenizer: the letters of byte-level BPE in order of their code points."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return tuple(alphabet.index(letter) for piece, _ in pieces for letter in piece)


@dataclass(frozen=True)
class Case:
    """press, options, alpha, attention: theirs; alpha wraps the press in AdaKV.

    compared: the tokens that both score; None: there is nothing to compare. window_size: tokens per block on our side.
    """

    name: str
    method: str
    setting: str
    ours: Selector
    press: str
    options: dict[str, Any] = field(default_factory=dict)
    alpha: float | None = None
    attention: str = "sdpa"
    compared: slice | None = None
    window_size: int = 1
    why: str = ""

    @property
    def theirs(self) -> dict[str, Any]:
        """As press_runs.py takes it."""
        case = {"name": self.name, "press": self.press, "options": self.options, "attention": self.attention}
        return case if self.alpha is None else {**case, "alpha": self.alpha}


SNAPKV = SnapKV(window=32, kernel=5, pooling="mean")
SNAPKV_OPTIONS = {"window_size": 32, "kernel_size": 5}
REVIEW = slice(0, -32)
PLAIN_EA = ExpectedAttention(epsilon=0.0)
TIES = "in two heads of the built-in model's planted layer hardly a token expects any attention: ties, broken at will"
KVZIP = KVzip(
    chunk_tokens=256,
    announce_first=byte_ids(FIRST),
    announce_next=byte_ids(NEXT),
    announce_last=byte_ids(LAST),
)

CASES = (
    Case(
        "snapkv",
        "SnapKV",
        "32 voters, mean of 5",
        TokenSelector("snapkv", SNAPKV),
        "SnapKVPress",
        SNAPKV_OPTIONS,
        compared=REVIEW,
    ),
    Case(
        "snapkv-own",
        "SnapKV",
        "each its own",
        OURS["snapkv"],
        "SnapKVPress",
        why="ours: 32 voters, maximum of 7 (the paper's LongBench runs), at most half of a list for the voters; "
        "kvpress: 64, mean of 5",
    ),
    Case(
        "snapkv-adakv",
        "AdaKV on SnapKV",
        "32 voters, mean of 5, α 0.2",
        TokenSelector("adaptive", SNAPKV, adaptive="heads", floor=ALPHA),
        "SnapKVPress",
        SNAPKV_OPTIONS,
        alpha=ALPHA,
        compared=REVIEW,
    ),
    Case(
        "pyramidkv",
        "PyramidKV",
        "8 voters, mean of 5, β 20",
        TokenSelector("pyramidkv", SnapKV(window=8, kernel=5, pooling="mean"), shape=Pyramid(8)),
        "PyramidKVPress",
        {"window_size": 8, "kernel_size": 5, "beta": 20},
        compared=slice(0, -8),
        why="same scores; kvpress draws its line through C, the authors (and we) through C - w and add w; where the "
        "last layer would get fewer than w tokens kvpress falls back to equal layers (here: kept 0.125)",
    ),
    Case("tova", "TOVA", "defaults", OURS["tova"], "TOVAPress", compared=slice(0, -1)),
    Case("keydiff", "KeyDiff", "defaults", OURS["keydiff"], "KeyDiffPress", compared=slice(0, None)),
    Case(
        "streamingllm",
        "StreamingLLM",
        "4 sinks; ours in windows of 4",
        StreamingLLM(),
        "StreamingLLMPress",
        {"n_sink": 4},
        window_size=4,
    ),
    Case(
        "streamingllm-16",
        "StreamingLLM",
        "4 sinks; ours in windows of 16",
        StreamingLLM(),
        "StreamingLLMPress",
        {"n_sink": 4},
        window_size=16,
        why="whole windows: 16 sinks, and 12 fewer recent tokens",
    ),
    Case(
        "observed",
        "H2O as ObservedAttention",
        "per query, no recent half",
        TokenSelector("observed", H2O(per_query=True, keep_recent=False)),
        "ObservedAttentionPress",
        attention="eager",
        compared=slice(0, None),
    ),
    Case(
        "h2o",
        "H2O",
        "each its own",
        OURS["h2o"],
        "ObservedAttentionPress",
        attention="eager",
        why="H2O sums attention and keeps a recent half; ObservedAttention divides by the number of queries that see a "
        "token, which favours late ones, and keeps nothing for being recent",
    ),
    Case(
        "expected",
        "Expected Attention",
        "ε 0",
        TokenSelector("expected", PLAIN_EA),
        "ExpectedAttentionPress",
        compared=slice(4, None),
        why=TIES,
    ),
    Case(
        "expected-adakv",
        "AdaKV on Expected Attention",
        "ε 0, α 0.2",
        TokenSelector("expected", PLAIN_EA, adaptive="heads", floor=ALPHA),
        "ExpectedAttentionPress",
        alpha=ALPHA,
        compared=slice(4, None),
        why=TIES,
    ),
    Case(
        "expected-own",
        "Expected Attention",
        "each its own",
        OURS["expected-attention"],
        "ExpectedAttentionPress",
        why="ours: ε 0.02 and heads that contend, as in the paper's main results; kvpress: ε 0, heads alike",
    ),
    Case(
        "kvzip",
        "KVzip",
        "chunks of 256, kvpress's words",
        TokenSelector("kvzip", KVZIP, adaptive="model", floor=0.0),
        "KVzipPress",
        {"chunk_size": 256},
        compared=slice(4, None),
    ),
    Case(
        "kvzip-own",
        "KVzip",
        "each its own",
        OURS["kvzip"],
        "KVzipPress",
        why="ours announces a chunk by the eight tokens before it alone, kvpress by a sentence in front of them",
    ),
)
