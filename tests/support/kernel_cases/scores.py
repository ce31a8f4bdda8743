"""score_windows and score_leader_keys on random queries and keys, judged by the paper's formulas in fp64."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from kernel_cases.memory import poisoned
from torch import Tensor

from windowkv_kernels import (
    QuantizedKeys,
    WindowScores,
    dequantize_keys,
    quantize_keys,
    score_leader_keys,
    score_windows,
)

# Relative, of scores that are sums of many weights. The short dtypes are exact as inputs; what is left is accumulation
# in fp32, of which tensor cores cut off more than rounding would. Quantized keys are judged against their dequantized
# values in the queries' dtype.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-4, torch.bfloat16: 2e-4}


@dataclass(frozen=True)
class ScoreCase:
    """bits: of the leader keys; 0: plain. A prompt (is_causal) has its observers as its last tokens. knows_lse: what
    their attention left is given."""

    num_tokens: int = 67
    num_observers: int = 5
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    window_size: int = 16
    top_p: int | None = None
    softcap: float | None = None
    is_causal: bool = True
    bits: int = 0
    group_tokens: int = 256
    dtype: torch.dtype = torch.float32
    knows_lse: bool = False

    def check(self, device: torch.device) -> None:
        queries, keys = self.draw(device)
        logits = self.logits(queries, self.values(keys))
        lse = logits.logsumexp(-1).float() if self.knows_lse else None
        with poisoned():
            got = self.score(queries, keys, lse)
        score, mass = self.expected(logits)
        tolerance = TOLERANCE[self.dtype]
        if self.bits:  # two roundings of every key on both sides
            tolerance = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}[self.dtype]
        assert got.score.dtype == got.mass.dtype == torch.float32
        torch.testing.assert_close(got.score.double(), score, atol=1e-7, rtol=tolerance)
        torch.testing.assert_close(got.mass.double(), mass, atol=1e-7, rtol=tolerance)

    def draw(self, device: torch.device) -> tuple[Tensor, Tensor | QuantizedKeys]:
        """queries [H, α, D] as the last of more, keys [n, Hkv, D] as a view of wider staging."""
        generator = torch.Generator().manual_seed(0)
        queries = torch.randn(self.heads, self.num_observers + 2, self.head_dim, generator=generator)
        shape = (self.num_tokens + 3, self.kv_heads, self.head_dim)
        keys = 2 * torch.randn(shape, generator=generator)
        queries, keys = queries.to(device, self.dtype)[:, 2:], keys.to(device, self.dtype)[: self.num_tokens]
        if self.bits:
            return queries, quantize_keys(keys, bits=self.bits, group_tokens=self.group_tokens)
        return queries, keys

    def score(self, queries: Tensor, keys: Tensor | QuantizedKeys, lse: Tensor | None = None) -> WindowScores:
        terms = {
            "window_size": self.window_size,
            "scale": self.head_dim**-0.5,
            "top_p": self.top_p,
            "softcap": self.softcap,
        }
        return (
            score_windows(queries, keys, lse=lse, **terms)
            if self.is_causal
            else score_leader_keys(queries, keys, **terms)
        )

    def values(self, keys: Tensor | QuantizedKeys) -> Tensor:
        return dequantize_keys(keys, dtype=self.dtype) if isinstance(keys, QuantizedKeys) else keys

    @property
    def num_review(self) -> int:
        return self.num_tokens - self.num_observers if self.is_causal else self.num_tokens

    def logits(self, queries: Tensor, keys: Tensor) -> Tensor:
        """[H, α, n] in fp64."""
        repeated = keys.double().repeat_interleave(self.heads // self.kv_heads, dim=1)
        logits = torch.einsum("had,nhd->han", queries.double(), repeated) * self.head_dim**-0.5
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        if self.is_causal:
            hidden = torch.ones(self.num_observers, self.num_tokens, device=keys.device)
            logits = logits.masked_fill(hidden.triu(self.num_review + 1).bool(), -math.inf)
        return logits

    def expected(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(score, mass) per window in fp64, from equations 1, 2 and 4."""
        tokens = logits.softmax(-1).sum(1)  # [H, n]
        scores, masses = [], []
        for start in range(0, self.num_tokens, self.window_size):
            window = slice(start, start + self.window_size)
            masses.append(tokens[:, window].sum() / (self.heads * self.num_observers))
            review = tokens[:, window][:, : max(0, self.num_review - start)]
            top = min(self.top_p or self.window_size, review.shape[1])
            is_any = review.shape[1] > 0
            scores.append(review.topk(top).values.mean() if is_any else masses[-1].new_tensor(-math.inf))
        return torch.stack(scores), torch.stack(masses)


QUESTION = ScoreCase(is_causal=False)
TINY = [
    ScoreCase(num_tokens=1, num_observers=1, heads=1, kv_heads=1),
    *(ScoreCase(num_tokens=n, num_observers=3, heads=2) for n in (15, 16, 17)),
    ScoreCase(num_tokens=101, num_observers=101, window_size=7, heads=2, kv_heads=1),  # nobody is reviewed
    ScoreCase(
        num_tokens=103, num_observers=41, heads=2, kv_heads=1, window_size=8
    ),  # observers beyond one tile
    ScoreCase(heads=8, kv_heads=1, num_observers=8),  # 8 to 1: heads beyond one tile
    ScoreCase(heads=3, kv_heads=1, num_observers=1),
    ScoreCase(
        num_tokens=161, num_observers=150, heads=1, kv_heads=1
    ),  # a mean with too many observers for one pass
    ScoreCase(window_size=1, num_tokens=37),
    *(
        ScoreCase(window_size=9, num_tokens=n, num_observers=4) for n in (40, 39)
    ),  # the review ends with a window, or not
    ScoreCase(window_size=128, num_tokens=129, heads=2, top_p=64),
    ScoreCase(num_tokens=1100, window_size=32, heads=2, kv_heads=1),  # several pieces
    *(ScoreCase(num_tokens=33, heads=2, kv_heads=1, head_dim=dim) for dim in (64, 96, 128, 256)),
    ScoreCase(num_tokens=33, head_dim=13),
    *(ScoreCase(top_p=p, num_tokens=71) for p in (1, 4, 1000)),
    ScoreCase(top_p=3, window_size=7, heads=8, kv_heads=1, softcap=5.0),
    ScoreCase(dtype=torch.float16, softcap=3.0),
    *(
        ScoreCase(num_tokens=n, num_observers=3, heads=2, top_p=p, knows_lse=True)
        for n in (15, 16, 17)
        for p in (None, 3)
    ),
    ScoreCase(num_tokens=1, num_observers=1, heads=1, kv_heads=1, knows_lse=True),
    ScoreCase(num_tokens=101, num_observers=101, window_size=7, heads=2, kv_heads=1, knows_lse=True),
    ScoreCase(num_tokens=103, num_observers=41, heads=2, kv_heads=1, window_size=8, top_p=3, knows_lse=True),
    ScoreCase(heads=8, kv_heads=1, num_observers=8, top_p=8, knows_lse=True),
    *(
        ScoreCase(num_tokens=33, heads=2, kv_heads=1, head_dim=dim, top_p=8, knows_lse=True)
        for dim in (64, 96, 128, 256)
    ),
    ScoreCase(num_tokens=1100, window_size=32, heads=2, kv_heads=1, knows_lse=True),
    ScoreCase(dtype=torch.float16, softcap=3.0, knows_lse=True),
    QUESTION,
    replace(QUESTION, top_p=5, dtype=torch.float16),
    *(
        replace(QUESTION, bits=bits, dtype=dtype)
        for bits in (4, 8)
        for dtype in (torch.float32, torch.float16)
    ),
    replace(QUESTION, bits=4, head_dim=96, group_tokens=7, num_tokens=40, top_p=2),  # tiles across groups
    replace(QUESTION, bits=8, window_size=7, group_tokens=64, num_tokens=150, heads=8, kv_heads=1),
    replace(QUESTION, bits=4, num_tokens=600, heads=2, kv_heads=1, window_size=32),
]
REAL = ScoreCase(num_tokens=5003, num_observers=32, heads=32, kv_heads=8, head_dim=128, dtype=torch.bfloat16)
LARGE = [
    REAL,
    replace(REAL, top_p=8, window_size=16, num_observers=16),
    *(replace(REAL, top_p=p, knows_lse=True) for p in (None, 8)),
    replace(REAL, heads=28, kv_heads=4, window_size=32, top_p=16, num_tokens=4099, knows_lse=True),
    replace(REAL, num_observers=300, window_size=128, heads=8, kv_heads=8, head_dim=64, knows_lse=True),
    replace(REAL, heads=28, kv_heads=4, window_size=32, num_tokens=4099),
    replace(REAL, heads=8, kv_heads=1, head_dim=256, softcap=50.0, dtype=torch.float16),
    replace(REAL, num_observers=300, window_size=128, heads=8, kv_heads=8, head_dim=64),
    *(replace(REAL, is_causal=False, bits=bits, num_observers=16) for bits in (0, 4, 8)),
    replace(REAL, is_causal=False, bits=4, head_dim=96, window_size=64, top_p=32, dtype=torch.float16),
]
