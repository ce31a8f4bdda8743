"""F1 over words: LongBench's score for question answering, SQuAD's before it (Rajpurkar et al. 2016)."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CHINESE_PIECES = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")


def token_f1(said: str, reference: str) -> float:
    """2PR / (P + R) of the two bags of words, in small letters, without punctuation and articles."""
    return bag_f1(_words(said), _words(reference))


def token_f1_chinese(said: str, reference: str) -> float:
    """The same over characters, without punctuation. LongBench takes words found by jieba; a character more or less
    in a word counts here for what it is, so scores are a little higher than published ones."""
    return bag_f1(
        *([piece for piece in chinese_pieces(text) if _is_said(piece)] for text in (said, reference))
    )


def bag_f1(said: Sequence[str], reference: Sequence[str]) -> float:
    num_same = sum((Counter(said) & Counter(reference)).values())
    return 2.0 * num_same / (len(said) + len(reference)) if num_same else 0.0


def chinese_pieces(text: str) -> list[str]:
    """Each character for itself, but runs of Latin letters and digits; in small letters, without white space."""
    return _CHINESE_PIECES.findall(text.lower())


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _is_said(piece: str) -> bool:
    return unicodedata.category(piece[0])[0] not in "PS"
