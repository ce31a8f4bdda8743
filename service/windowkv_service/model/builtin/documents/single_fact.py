"""The single-fact task: facts about people hidden in an expedition log, each question asks for one of them."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from windowkv_service.model.builtin.documents import facts, filler, lexicon
from windowkv_service.model.builtin.documents.facts import ATTRIBUTES, Attribute, Split
from windowkv_service.model.builtin.documents.question import Document, Question

_TITLED_FROM = 200  # tokens: shorter documents get no title and no days
_DAY_SENTENCES = (7, 13)
_PIECE = re.compile(r"\w+|[^\w\s]|\n")

TITLE = "Log of the {place} expedition."
DAY = "\nDay {day}."


@dataclass(frozen=True)
class SingleFact:
    """What to generate.

    num_tokens: length of the document, kept to within one sentence.
    num_questions: how many of the facts are asked for (at most one question per fact).
    num_facts: facts in the document; None fills the whole document with facts.
    distractor_ratio: share of the filler that mentions people, things or places without stating a fact.
    num_statements, num_phrasings: how many ways to state and to ask for an attribute are used, the plainest first;
    None for all.
    """

    num_tokens: int
    num_questions: int
    num_facts: int | None
    attributes: Sequence[Attribute] = ATTRIBUTES
    distractor_ratio: float = 0.25
    num_statements: int | None = None
    num_phrasings: int | None = None

    def draw(self, rng: random.Random, split: Split) -> Document:
        """A document of this kind. The same state of `rng` gives the same document."""
        limit = len(lexicon.NAMES) * len(self.attributes)
        wanted = self.num_tokens // 5 if self.num_facts is None else self.num_facts
        drawn = facts.draw_facts(rng, max(1, min(wanted, limit)), split, self.attributes)
        sentences, stated = self._sentences(rng, drawn)
        asked = rng.sample(stated, min(self.num_questions, len(stated)))
        questions = tuple(Question(facts.ask(rng, fact, self.num_phrasings), fact.value) for fact in asked)
        return Document(lay_out(rng, sentences, self.num_tokens), questions)

    def _sentences(self, rng: random.Random, drawn: list[facts.Fact]) -> tuple[list[str], list[facts.Fact]]:
        """Sentences of about `num_tokens` tokens in random order, and the facts among them."""
        sentences: list[str] = []
        room = (
            self.num_tokens if self.num_tokens < _TITLED_FROM else int(0.95 * self.num_tokens)
        )  # the days take the rest
        stated: list[facts.Fact] = []
        for fact in drawn:
            said = facts.state(rng, fact, self.num_statements)
            if stated and count_tokens(said) > room:
                break
            room -= count_tokens(said)
            sentences.append(said)
            stated.append(fact)
        while self.num_facts is not None and room >= 6:
            said = filler.sentence(rng, self.distractor_ratio)
            room -= count_tokens(said)
            sentences.append(said)
        rng.shuffle(sentences)
        return sentences, stated


def lay_out(rng: random.Random, sentences: list[str], num_tokens: int) -> str:
    """The sentences as a log: a title, then one paragraph per day. Short documents are one plain line."""
    if num_tokens < _TITLED_FROM:
        # The leading space keeps every word in its one usual form.
        return " " + " ".join(sentences)
    text = TITLE.format(place=rng.choice(lexicon.PLACES))
    start, day = 0, 1
    while start < len(sentences):
        end = start + rng.randint(*_DAY_SENTENCES)
        text += DAY.format(day=day) + " " + " ".join(sentences[start:end])
        start, day = end, day + 1
    return text


def count_tokens(text: str) -> int:
    """How many tokens the model's tokenizer makes of generated text (exact for the lexicon's words)."""
    return len(_PIECE.findall(text))
