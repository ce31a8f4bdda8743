"""Page tokens as callers hold them: opaque, and good only for the list that gave them out.

The engine's own token is wrapped with a digest over it, the tenant and the filter, so that garbage and
tokens of another list are refused instead of giving a wrong page. No secret: the engine asks for the tenant.
"""

from __future__ import annotations

import hashlib
import re

from windowkv_service.domain.requests import Labels
from windowkv_service.errors import BadPageToken

DIGEST_BYTES = 12
SYNTAX = re.compile(r"([0-9a-f]{2})+")


def wrap(token: str, tenant: str, label_filter: Labels) -> str:
    """The engine's token for the next page, as the caller gets it; empty, for no next page, stays empty."""
    return (_digest(token.encode(), tenant, label_filter) + token.encode()).hex() if token else ""


def unwrap(page_token: str, tenant: str, label_filter: Labels, field: str) -> str:
    """The engine's token inside; BadPageToken when this list did not give it out."""
    if not page_token:
        return ""
    raw = bytes.fromhex(page_token) if SYNTAX.fullmatch(page_token) else b""
    digest, token = raw[:DIGEST_BYTES], raw[DIGEST_BYTES:]
    if not token or digest != _digest(token, tenant, label_filter):
        raise BadPageToken("this list gave out no such token; start again without one", field=field)
    return token.decode()


def _digest(token: bytes, tenant: str, label_filter: Labels) -> bytes:
    list_of = repr((token, tenant, sorted(label_filter.items())))
    return hashlib.sha256(list_of.encode()).digest()[:DIGEST_BYTES]
