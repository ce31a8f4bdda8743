"""The syntax of what callers name: caches, aliases, labels. Whether it exists is the engine's to say."""

from __future__ import annotations

import re
from collections.abc import Mapping

from windowkv_service.domain.requests import Labels
from windowkv_service.errors import BadFilter, BadName, BadOption, InvalidRequest

CACHE_NAME = re.compile(r"caches/[0-9a-f]{40}|aliases/[a-z0-9-]{1,64}")
ALIAS = re.compile(r"[a-z0-9-]{1,64}")
LABEL_KEY = re.compile(r"[a-z][a-z0-9_./-]{0,62}")
MAX_LABEL_VALUE = 128
MAX_LABELS = 64
MAX_DISPLAY_NAME = 128


def check_cache_name(name: str, field: str) -> str:
    if not CACHE_NAME.fullmatch(name):
        raise BadName('"caches/{40 hex digits}" or "aliases/{1 to 64 of a-z 0-9 -}" is expected', field=field)
    return name


def check_alias(alias: str, field: str) -> str:
    """An alias without its "aliases/"; empty is no alias."""
    if alias and not ALIAS.fullmatch(alias):
        raise BadName("an alias is 1 to 64 of a-z, 0-9 and -", field=field)
    return alias


def check_display_name(display_name: str, field: str) -> str:
    if len(display_name) > MAX_DISPLAY_NAME or not _is_plain(display_name):
        raise BadOption(f"a display name is at most {MAX_DISPLAY_NAME} printable characters", field=field)
    return display_name


def check_labels(labels: Mapping[str, str], field: str) -> Labels:
    return _check_labels(labels, field, BadOption)


def check_label_filter(labels: Mapping[str, str], field: str) -> Labels:
    return _check_labels(labels, field, BadFilter)


def _check_labels(labels: Mapping[str, str], field: str, error: type[InvalidRequest]) -> Labels:
    if len(labels) > MAX_LABELS:
        raise error(f"at most {MAX_LABELS} labels", field=field)
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key):
            raise error("a label's key is a-z and up to 62 of a-z 0-9 _ . / -", field=field)
        if len(value) > MAX_LABEL_VALUE or not _is_plain(value):
            raise error(f"a label's value is at most {MAX_LABEL_VALUE} printable characters", field=field)
    return dict(labels)


def _is_plain(text: str) -> bool:
    """No control characters: what callers name is shown in tables and logs."""
    return text.isprintable()
