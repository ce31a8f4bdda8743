"""PyramidKV (arXiv 2406.02069): SnapKV's votes, and a budget that falls on a line from the first layer to the last.

Code consulted: Zefan-Cai/KVCache-Factory, pyramidkv_utils.py (MIT); kvpress, pyramidkv_press.py (Apache-2.0).

With C tokens per layer on average, of which the w last ones always stay, layer l of L keeps w + max - l · (max - min) /
(L - 1) tokens: min = (C - w) / β, max = 2 (C - w) - min; where max would pass the n - w there are, it is n - w, and min
is 2 (C - w) - max, so that the average stays.

What we do differently:
- The line holds at every length. The official code silently falls back to equal layers for C ≤ n < 2 (C - w), and
  kvpress wherever the last layer would get fewer than w tokens; kvpress also leaves the + w out and draws the line
  through C itself, so that its pyramid is steeper at equal budgets.
- The line is drawn in tokens and granted in whole blocks; what a layer cannot use goes to the others.
- Where w is more than half of C, half of C stands for it, as in snapkv.
- w = 8 and the maximum over 7 neighbours, as the authors' runners; kvpress: 64, and the mean over 5.
"""

from __future__ import annotations

from dataclasses import dataclass

from windowkv_service.selection.snapkv import SnapKV
from windowkv_service.selection.token_selector import TokenSelector

WINDOW = 8


@dataclass(frozen=True)
class Pyramid:
    """A LayerShape. window: w above; steepness: β, at least 1; 1 is uniform."""

    window: int = WINDOW
    steepness: float = 20.0

    def shares(self, num_layers: int, mean_tokens: float, num_tokens: int) -> tuple[float, ...]:
        """Tokens per layer; not rounded."""
        if num_layers == 1 or mean_tokens <= 0:
            return (1.0,) * num_layers
        mean = min(mean_tokens, num_tokens)
        window = min(self.window, mean / 2)
        last = (mean - window) / self.steepness
        first = min(2 * (mean - window) - last, num_tokens - window)
        last = 2 * (mean - window) - first
        step = (first - last) / (num_layers - 1)
        return tuple(window + first - step * layer for layer in range(num_layers))


def pyramidkv() -> TokenSelector:
    return TokenSelector("pyramidkv", SnapKV(window=WINDOW), shape=Pyramid())
