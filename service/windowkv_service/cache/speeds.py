"""How fast bytes come back and prompts are computed here, measured as we go: the ground for load or
recompute."""

from __future__ import annotations

from windowkv_service.domain.results import Tier

_WEIGHT = 0.2  # of the newest measurement


class Speeds:
    """The first estimates are replaced by what is observed; one worker's thread uses them."""

    def __init__(self) -> None:
        self.bytes_per_s = {Tier.HOST: 8e9, Tier.REDIS: 8e8}
        self.prefill_tokens_per_s = 2e3

    def observe_load(self, source: Tier, size_bytes: int, seconds: float) -> None:
        if source in self.bytes_per_s and size_bytes > 0 and seconds > 0:
            self.bytes_per_s[source] += _WEIGHT * (size_bytes / seconds - self.bytes_per_s[source])

    def observe_prefill(self, num_tokens: int, seconds: float) -> None:
        if num_tokens > 0 and seconds > 0:
            self.prefill_tokens_per_s += _WEIGHT * (num_tokens / seconds - self.prefill_tokens_per_s)

    def load_s(self, source: Tier, size_bytes: int) -> float:
        return size_bytes / self.bytes_per_s[source]

    def recompute_s(self, num_tokens: int) -> float:
        return num_tokens / self.prefill_tokens_per_s

    def is_load_cheaper(self, source: Tier, size_bytes: int, num_tokens: int) -> bool:
        return self.load_s(source, size_bytes) <= self.recompute_s(num_tokens)
