"""What a cache may be, and which windows or tokens its questions see."""

from __future__ import annotations

from typing import Any


def cache_kinds(token_method: str) -> dict[str, dict[str, Any]]:
    """Name → how a creation asks for it. token_method: what chooses tokens of each layer and head."""
    return {
        "uncompressed": {"kept_ratio": 1.0},
        "chosen-by-the-question": {"kept_ratio": 0.4},
        "as-published": {"kept_ratio": 0.4, "retention": "selected"},
        "tokens-of-each-head": {"kept_ratio": 0.4, "method": token_method},
        "tokens-dropped-on-the-way": {"kept_ratio": 0.4, "method": "pyramidinfer"},
        "quantized-below": {"kept_ratio": 0.4, "codec": "int4"},
        "quantized-tokens-of-each-head": {"kept_ratio": 0.4, "method": token_method, "codec": "int8"},
    }
