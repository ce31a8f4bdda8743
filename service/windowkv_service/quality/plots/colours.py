"""One colour per method, the same in every picture and every run."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FULL = "#000000"
#: Ours are blue, choices that look at nothing are grey; the others are told apart by hue and by their labels.
COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "full": FULL,
        "windowkv": "#0b4fd1",
        "windowkv-published": "#5aa9e6",
        "random": "#9a9a9a",
        "random-tokens": "#bdbdbd",
        "streamingllm": "#5e5e5e",
        "snapkv": "#d1495b",
        "pyramidkv": "#e08e1b",
        "h2o": "#8f5fbf",
        "tova": "#2a9d6f",
        "keydiff": "#a0522d",
        "expected-attention": "#c2339a",
        "kvzip": "#00838f",
        "quest": "#7a8b00",
        "pyramidinfer": "#b5651d",
    }
)
OTHERS = ("#444466", "#668844", "#aa6677", "#336699", "#997700", "#774488", "#338877", "#bb5533")


def colours(methods: list[str]) -> dict[str, str]:
    """A colour for each of them; names that are not known (controls, new methods) take the spare ones in turn."""
    spare = [name for name in methods if name not in COLOURS]
    taken = {name: OTHERS[place % len(OTHERS)] for place, name in enumerate(spare)}
    return {name: COLOURS.get(name) or taken[name] for name in methods}
