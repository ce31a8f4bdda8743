"""The needle task: one fact is asked for, and it stands at a given depth of the document (Needle in a Haystack)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from windowkv_service.model.builtin.documents import facts, filler
from windowkv_service.model.builtin.documents.facts import ATTRIBUTES, Attribute, Split
from windowkv_service.model.builtin.documents.question import Document, Question
from windowkv_service.model.builtin.documents.single_fact import count_tokens, lay_out


@dataclass(frozen=True)
class Needle:
    """What to generate.

    num_tokens: length of the document, kept to within one sentence.
    depth: where the asked fact stands, as a share of the text before it: 0.0 is the first sentence, 1.0 the last.
    num_facts: facts in the document, the asked one among them; the others stand anywhere.
    distractor_ratio: share of the filler that mentions people, things or places without stating a fact.
    """

    num_tokens: int
    depth: float
    num_facts: int
    attributes: Sequence[Attribute] = ATTRIBUTES
    distractor_ratio: float = 0.25

    def draw(self, rng: random.Random, split: Split) -> Document:
        """A document of this kind. The same state of `rng` gives the same document."""
        needle, *others = facts.draw_facts(rng, self.num_facts, split, self.attributes)
        statement = facts.state(rng, needle)
        hay = [facts.state(rng, fact) for fact in others]
        room = int(0.95 * self.num_tokens) - count_tokens(" ".join([statement, *hay]))  # days take the rest
        while room >= 6:
            hay.append(filler.sentence(rng, self.distractor_ratio))
            room -= count_tokens(hay[-1])
        rng.shuffle(hay)
        hay.insert(self._place(hay), statement)
        question = Question(facts.ask(rng, needle), needle.value)
        return Document(lay_out(rng, hay, self.num_tokens), (question,))

    def _place(self, hay: Sequence[str]) -> int:
        """The number of sentences that make up `depth` of the hay, by tokens."""
        lengths = [count_tokens(sentence) for sentence in hay]
        before, wanted = 0, self.depth * sum(lengths)
        for place, length in enumerate(lengths):
            if before + length / 2 > wanted:
                return place
            before += length
        return len(hay)
