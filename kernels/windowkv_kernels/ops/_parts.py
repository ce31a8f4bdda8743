"""GPU classes, and the tile sizes shipped for each: looked up, never tuned while serving.

tiles.json maps operation → class → rows, tried in order; the first whose `up_to` bounds the shape is taken. The class
`other` serves parts without rows of their own. `benchmarks/tune_kernels.py` writes rows from measurements; those that
it has not written yet follow from arithmetic: shared memory for two or three programs per multiprocessor, and loads
that run two tiles ahead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

TILES = Path(__file__).with_name("tiles.json")
OTHER = "other"


@dataclass(frozen=True)
class Part:
    """A GPU as far as tiles and grids depend on it. name: its class in tiles.json."""

    name: str
    num_multiprocessors: int


# What runs a kernel without a GPU (Triton's interpreter, ahead-of-time compilation) plans for few programs.
NO_GPU = Part(OTHER, 4)
KNOWN = {
    "H100": Part("H100", 132),
    "H200": Part("H200", 132),
    "A100": Part("A100", 108),
}
_BY_CAPABILITY = {(9, 0): "H100", (8, 0): "A100"}


@dataclass(frozen=True)
class Tile:
    """How a kernel cuts its work. sizes: its tile's sides by name, and RESIDENT, the programs that a multiprocessor
    holds at once, where the grid depends on it."""

    sizes: Mapping[str, int]
    num_warps: int
    num_stages: int

    def __getitem__(self, side: str) -> int:
        return self.sizes[side]


@cache
def part_of(device: torch.device) -> Part:
    if device.type != "cuda":
        return NO_GPU
    properties = torch.cuda.get_device_properties(device)
    capability = (properties.major, properties.minor)
    named = next((name for name in KNOWN if name in properties.name), None)
    return Part(named or _BY_CAPABILITY.get(capability, OTHER), properties.multi_processor_count)


def tile_for(operation: str, part: Part, **shape: int) -> Tile:
    """The shipped tile of operation for a problem of this shape, whose every bound must be known by name."""
    classes = shipped_tiles()[operation]
    for row in classes.get(part.name, classes[OTHER]):
        if all(shape[name] <= bound for name, bound in row.get("up_to", {}).items()):
            return Tile(row["tile"], row["num_warps"], row["num_stages"])
    raise ValueError(f"{operation} has no tile for {shape} on {part.name}")


@cache
def shipped_tiles() -> Any:
    """tiles.json: operation → class → rows."""
    return json.loads(TILES.read_text(encoding="utf-8"))
