"""LongBench's score for the next line of code."""

from __future__ import annotations

from difflib import SequenceMatcher

NO_CODE = ("`", "#", "//")  # a line with one of these is a fence or a comment


def code_similarity(said: str, reference: str) -> float:
    """How alike the first line of code said and the reference are: twice the characters in matching blocks over both
    lengths (Ratcliff and Obershelp), in whole percents.

    That is fuzzywuzzy's ratio with what LongBench's requirements install. Where python-Levenshtein is installed too,
    fuzzywuzzy takes the longest common subsequence instead (as rapidfuzz does), which is never less.
    """
    lines = said.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(mark in line for mark in NO_CODE)), "")
    return round(100.0 * SequenceMatcher(None, line, reference).ratio()) / 100.0
