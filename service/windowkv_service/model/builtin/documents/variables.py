"""RULER's variable tracking (vt): which variables got a value, directly or by way of others?

RULER writes "VAR X1 = 12345 ... VAR X2 = VAR X1 ..." into repeated noise and asks for all variables that are assigned
12345: one chain of four hops. What differs here, and why:

- An assignment names its source first ("ba goes to de."), so that following it is the lookup "what comes after ba?"
  that the model has anyway; "VAR de = VAR ba" would need a search for what stands before.
- Variables are coded words, one token each, and the value is a number of two digits.
- The answer lists the chain in its order; each name triggers the search for the next.
- Two more chains with other values stand in the document (RULER: none by default): without them, listing all
  variables would be right.

Held out: every assignment of a held-out document is a held-out (source, target) pair, by `split_of`.
"""

import itertools
import random
from dataclasses import dataclass

from windowkv_service.model.builtin.documents import lexicon
from windowkv_service.model.builtin.documents.facts import Split, split_of
from windowkv_service.model.builtin.documents.question import Document, Question
from windowkv_service.model.builtin.documents.retrieval import NOISE
from windowkv_service.model.builtin.documents.single_fact import count_tokens

ASSIGNMENT = "{source} goes to {target}."
QUESTION = "Which variables got {value}?"


@dataclass(frozen=True)
class Variables:
    """What to generate.

    num_tokens: length of the document, kept to within one sentence. num_questions: chains asked for, at most
    num_chains. num_hops: assignments from variable to variable; a chain has one variable more.
    """

    num_tokens: int
    num_questions: int = 1
    num_chains: int = 3
    num_hops: int = 4

    def draw(self, rng: random.Random, split: Split) -> Document:
        """A document of this kind. The same state of `rng` gives the same document."""
        chains = self._chains(rng, split)
        sentences = self._fill(rng, self._interleave(rng, chains))
        questions = tuple(
            Question(QUESTION.format(value=value), " ".join(variables), tuple(variables))
            for value, *variables in rng.sample(chains, min(self.num_questions, len(chains)))
        )
        return Document(" " + " ".join(sentences), questions)

    def _chains(self, rng: random.Random, split: Split) -> list[list[str]]:
        """Per chain the value and its variables in order; no word is in two chains."""
        values = rng.sample(lexicon.CABINS, self.num_chains)
        free = set(lexicon.CODED)
        chains = []
        for value in values:
            chain = [value]
            while len(chain) < self.num_hops + 2:
                fitting = [
                    word for word in lexicon.CODED if word in free and split_of(chain[-1], word) is split
                ]
                chain.append(rng.choice(fitting))
                free.discard(chain[-1])
            chains.append(chain)
        return chains

    def _interleave(self, rng: random.Random, chains: list[list[str]]) -> list[str]:
        """The assignments of all chains, each chain's in their order."""
        turns = [index for index, chain in enumerate(chains) for _ in chain[1:]]
        rng.shuffle(turns)
        steps = [itertools.pairwise(chain) for chain in chains]
        said = []
        for index in turns:
            source, target = next(steps[index])
            said.append(ASSIGNMENT.format(source=source, target=target))
        return said

    def _fill(self, rng: random.Random, assignments: list[str]) -> list[str]:
        hay: list[str] = []
        room = self.num_tokens - count_tokens(" ".join(assignments))
        while room >= 5:
            hay.append(NOISE[len(hay) % len(NOISE)])
            room -= count_tokens(hay[-1])
        places = sorted(rng.randint(0, len(hay)) for _ in assignments)
        for before, (place, assignment) in enumerate(zip(places, assignments, strict=True)):
            hay.insert(place + before, assignment)
        return hay
