"""Which single tokens stay of a prompt, where a method chooses them for each layer and KV head."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping
from typing import TypeAlias

# One lane for each layer of a group and each KV head of the layer, in that order: ascending positions, as an array of
# domain.keys.TOKEN_ARRAY.
Lanes: TypeAlias = "tuple[array[int], ...]"
KeptTokens: TypeAlias = Mapping[
    int, Lanes
]  # layer group → its lanes; a group that keeps whole windows is not in it


def digest_of(tokens: KeptTokens, method: str) -> bytes:
    """Of the whole choice and of who made it: a method may compute a layer's KV from what the layers before it kept."""
    digest = hashlib.sha256(method.encode())
    for group, lanes in sorted(tokens.items()):
        for lane, positions in enumerate(lanes):
            digest.update(b"".join(n.to_bytes(4, "little") for n in (group, lane, len(positions))))
            digest.update(positions.tobytes())
    return digest.digest()
