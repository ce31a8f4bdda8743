"""RULER's aggregation tasks: common words (cwe) and frequent words (fwe). Words of the whole document are counted.

What differs from RULER, and why:

- The list is plain words, one token each, without numbers before them: the document then is all words.
- cwe: as in RULER ten common words stand ten times as often as the others (30 against 3 there); how often depends on
  the length. The lexicon has 126 such words, so a longer document repeats them more often, where RULER adds words.
- fwe: words are coded words, drawn by a zeta distribution with exponent 2 as in RULER. RULER replaces the first of
  the ranking by dots and asks for the next three; here the first three themselves are asked for, the contrast from the
  third to the fourth being 1.8 instead of 1.6. Counts are the expected ones, so the order is never a matter of luck.
- The ten words of cwe may come in any order; the three of fwe come most frequent first (any order is scored right).

Held out: the set of common words (cwe), the ranking of three (fwe), by checksum of the words joined.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from windowkv_service.model.builtin.documents import lexicon
from windowkv_service.model.builtin.documents.facts import Split, split_of
from windowkv_service.model.builtin.documents.question import Document, Question

COMMON_QUESTION = "Which {count} words are the most common?"
FREQUENT_QUESTION = "Which three words are the most frequent?"
CONTRAST = 10  # a common word stands so many times as often as another
EXPONENT = 2.0
_COUNTS = {5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten"}


@dataclass(frozen=True)
class CommonWords:
    """cwe. num_tokens: words in the document; num_common: how many are common and asked for, five to ten.

    One question per document: `num_questions` is for the contract's sake and does nothing.
    """

    num_tokens: int
    num_questions: int = 1
    num_common: int = 10

    def draw(self, rng: random.Random, split: Split) -> Document:
        """A document of this kind. The same state of `rng` gives the same document."""
        common = _draw_apart(rng, lambda: rng.sample(lexicon.COMMON, self.num_common), sorted, split)
        others = [word for word in lexicon.COMMON if word not in common]
        # How often another word stands, so that the whole lexicon would fill the document.
        repeats = max(1, self.num_tokens // (CONTRAST * self.num_common + len(others)))
        often = max(2, min(CONTRAST * repeats, self.num_tokens // (2 * self.num_common)))
        rest = max(0, self.num_tokens - often * self.num_common)
        rng.shuffle(others)
        words = common * often + (others * (rest // len(others) + 1))[:rest]
        rng.shuffle(words)
        question = COMMON_QUESTION.format(count=_COUNTS[self.num_common])
        return Document(
            " " + " ".join(words), (Question(question, "; ".join(common), tuple(common), any_order=True),)
        )


@dataclass(frozen=True)
class FrequentWords:
    """fwe. num_tokens: words in the document, to within 2 %. One question per document."""

    num_tokens: int
    num_questions: int = 1

    def draw(self, rng: random.Random, split: Split) -> Document:
        """A document of this kind. The same state of `rng` gives the same document."""
        ranking = _draw_apart(
            rng, lambda: rng.sample(lexicon.FREQUENT, len(lexicon.FREQUENT)), lambda all_: all_[:3], split
        )
        shares = [rank**-EXPONENT for rank in range(1, len(ranking) + 1)]
        scale = self.num_tokens / sum(shares)
        words = [
            word for word, share in zip(ranking, shares, strict=True) for _ in range(round(scale * share))
        ]
        rng.shuffle(words)
        top = tuple(ranking[:3])
        return Document(
            " " + " ".join(words), (Question(FREQUENT_QUESTION, "; ".join(top), top, any_order=True),)
        )


def _draw_apart(
    rng: random.Random, draw: Callable[[], list[str]], key: Callable[[list[str]], list[str]], split: Split
) -> list[str]:
    """Draws until the words that `key` takes of it belong to the split."""
    while True:
        drawn = draw()
        first, *others = key(drawn)
        if split_of(first, " ".join(others)) is split:
            return drawn
