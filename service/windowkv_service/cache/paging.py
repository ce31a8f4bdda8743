"""Pages of a listing, stable while entries come and go.

A page token says after which entry the next page begins and for which tenant and filter it was made. It
carries no secret and grants nothing: a forged one names another place in the caller's own listing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable
from heapq import nsmallest

from windowkv_service.cache.entry import Entry
from windowkv_service.domain.requests import ListRequest
from windowkv_service.errors import BadOption, BadPageToken

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
_VERSION = 1
_Place = tuple[float, str]  # sorts newest first, then by identity


def page(entries: Iterable[Entry], request: ListRequest) -> tuple[list[Entry], str]:
    """The page asked for, newest first, and the token of the next; "" after the last. page_size 0 is the
    default."""
    if request.page_size < 0:
        raise BadOption(f"page_size must not be negative: {request.page_size}", field="page_size")
    size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    scope = _scope(request)
    after = _read(request.page_token, scope) if request.page_token else None
    matching = (one for one in entries if _matches(one, request) and (after is None or _place(one) > after))
    found = nsmallest(size + 1, matching, key=_place)
    return found[:size], _write(_place(found[size - 1]), scope) if len(found) > size else ""


def _matches(entry: Entry, request: ListRequest) -> bool:
    return entry.is_named and request.label_filter.items() <= entry.labels.items()


def _place(entry: Entry) -> _Place:
    return (-entry.create_time, entry.cache_id)


def _scope(request: ListRequest) -> str:
    asked = json.dumps([request.tenant, sorted(request.label_filter.items())])
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def _write(place: _Place, scope: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([_VERSION, scope, *place]).encode()).decode()


def _read(token: str, scope: str) -> _Place:
    try:
        version, of, time, cache_id = json.loads(
            base64.b64decode(token.encode("ascii"), b"-_", validate=True)
        )
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise BadPageToken("not a page token of this service", field="page_token") from None
    if version != _VERSION or not isinstance(time, float) or not isinstance(cache_id, str):
        raise BadPageToken("not a page token of this service", field="page_token")
    if of != scope:
        raise BadPageToken("the page token belongs to another listing", field="page_token")
    return time, cache_id
