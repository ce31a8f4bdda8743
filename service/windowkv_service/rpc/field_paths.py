"""Which field of a request is to blame, as the caller knows it.

Errors of the rooms below name the fields of their own requests ("compression.method", "ttl_s"); on the wire the same
thing is somewhere else in each message ("cache.compression.method", "cache.ttl").
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.message import Message

RENAMED = {"ttl_s": "cache.ttl", "token_ids": "input", "name": "cache"}
INDEX = re.compile(r"\[\d+\]")


def wire_path(field: str, request: object) -> str:
    """The path in the request that `field` means; `field` as it is when the request has no such thing."""
    if not isinstance(request, Message):
        return field
    candidates = (field, f"cache.{field}", RENAMED.get(field, ""), f"input.{field}")
    return next((path for path in candidates if _has(request.DESCRIPTOR, path)), field)


def _has(message: Any, path: str) -> bool:
    """message is a protobuf Descriptor, of which there are two classes, or None."""
    for name in INDEX.sub("", path).split("."):
        if message is None or name not in message.fields_by_name:
            return False
        message = message.fields_by_name[name].message_type
    return True
