"""ROUGE-L (Lin 2004), in the reading of the `rouge` package 1.0.1, which LongBench's published numbers are made with.

The union form over sentences, on sets of words: with W(t) the different words of a text t,

    U = union over sentences r of the reference and c of the answer of the words of LCS(r, c)
    R = |U| / |W(reference)|,  P = |U| / |W(answer)|,  F = 2PR / (P + R)

Sentences end at full stops and nowhere else. Other packages (rouge-score) count every occurrence of a word, not every
different one, and lie a few points away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from windowkv_service.quality.metrics.token_f1 import chinese_pieces


def rouge_l(said: str, reference: str) -> float:
    """F of words. 0 where nothing was said."""
    answered, wanted = _sentences(said), _sentences(reference)
    if not answered or not wanted:
        return 0.0
    union = {word for one in wanted for other in answered for word in _common(one, other)}
    return 2.0 * len(union) / (_num_words(wanted) + _num_words(answered))


def rouge_l_chinese(said: str, reference: str) -> float:
    """The same over characters. LongBench takes words found by jieba, so scores differ from published ones."""
    return rouge_l(" ".join(chinese_pieces(said)), " ".join(chinese_pieces(reference)))


def _sentences(text: str) -> list[list[str]]:
    """A sentence of nothing but spaces is one empty word, as in the package."""
    return [" ".join(sentence.split()).split(" ") for sentence in text.split(".") if sentence]


def _num_words(sentences: Sequence[Sequence[str]]) -> int:
    return len({word for sentence in sentences for word in sentence})


def _common(one: Sequence[str], other: Sequence[str]) -> Iterator[str]:
    """The words of a longest common subsequence; of several, the one that the package finds."""
    lengths = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, word in enumerate(one):
        above, row = lengths[i], lengths[i + 1]
        for j, candidate in enumerate(other):
            row[j + 1] = above[j] + 1 if word == candidate else max(above[j + 1], row[j])
    i, j = len(one), len(other)
    while i and j:
        if one[i - 1] == other[j - 1]:
            i, j = i - 1, j - 1
            yield one[i]
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
