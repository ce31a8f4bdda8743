"""How the numbers of a block are written below the device.

A codec is part of what a cache is: of its name, of the addresses of its blocks, of its manifest and of every frame. The
same prompt under two codecs is two caches that share no block. A name never changes its meaning: another layout of the
bytes is another name.
"""

from __future__ import annotations

from enum import Enum


class Codec(Enum):
    """EXACT writes what the model computed. The others write fewer bits, with group scales: windowkv_kernels'
    quantize_blocks states their layouts and their error bounds."""

    EXACT = "exact"
    INT8 = "int8"
    FP8 = "fp8"  # e4m3
    INT4 = "int4"

    @property
    def is_exact(self) -> bool:
        return self is Codec.EXACT

    @property
    def tag(self) -> bytes:
        """In addresses and frames; what is exact carries none there, as it did before there were others."""
        return b"" if self.is_exact else self.value.encode("ascii")

    @classmethod
    def of_tag(cls, tag: bytes) -> Codec:
        """ValueError for one that this worker does not know."""
        known = {codec.tag: codec for codec in cls}
        if tag not in known:
            raise ValueError(f"unknown codec {tag!r}")
        return known[tag]

    def code_bytes(self, count: int, itemsize: int) -> int:
        """What so many numbers of itemsize bytes take, without scales."""
        bits = {Codec.INT8: 8, Codec.FP8: 8, Codec.INT4: 4}.get(self, 8 * itemsize)
        return count * bits // 8
