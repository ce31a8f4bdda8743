"""RULER's question answering (qa_1, qa_2): paragraphs about people, of which one or two hold the answer.

RULER takes paragraphs of SQuAD (one hop) and HotpotQA (two hops) and fills the prompt with others of the same data
set. What differs here, and why:

- Facts and paragraphs are generated: a built-in model has read no encyclopedia, and no text may be copied.
- Every sentence of a paragraph names its person; a pronoun would need a reader of another size.
- The two-hop answer says its bridge ("Denby Greycliff", Denby being the companion), so that each hop is one lookup;
  only the second part is scored.

Held out: (name, value) pairs by `split_of`, pairs of companions by `companions_split`.
"""

import random
from dataclasses import dataclass

from windowkv_service.model.builtin.documents import filler, lexicon
from windowkv_service.model.builtin.documents.facts import (
    ATTRIBUTES,
    Attribute,
    Fact,
    Split,
    ask,
    draw_value,
    split_of,
    state,
)
from windowkv_service.model.builtin.documents.question import Document, Question
from windowkv_service.model.builtin.documents.single_fact import count_tokens

COMPANION = Attribute(
    "companion",
    (lexicon.NAMES,),
    ("The companion of {name} is {value}.", "{name} travels with {value}."),
    ("Who is the companion of {name}?",),
)
BRIDGED_QUESTION = "What is the {label} of the companion of {name}?"
HEADING = "\n{name}."


@dataclass(frozen=True)
class Person:
    """Somebody with a paragraph: two facts or more, and a companion who has a paragraph too."""

    name: str
    facts: tuple[Fact, ...]
    companion: str


@dataclass(frozen=True)
class Paragraphs:
    """What to generate.

    num_tokens: length of the document, kept to within a paragraph. num_questions: each is about another person.
    num_hops: 1 asks for a person's fact, 2 for a fact of a person's companion.
    """

    num_tokens: int
    num_questions: int = 1
    num_hops: int = 1

    def draw(self, rng: random.Random, split: Split) -> Document:
        """A document of this kind. The same state of `rng` gives the same document."""
        names = rng.sample(lexicon.NAMES, len(lexicon.NAMES))
        people: dict[str, Person] = {}
        paragraphs: list[str] = []
        room = self.num_tokens
        while names and (room > 0 or not people):
            for person in self._pair(rng, names, split):
                people[person.name] = person
                paragraphs.append(self._write(rng, person))
                room -= count_tokens(paragraphs[-1])
        rng.shuffle(paragraphs)
        asked = rng.sample(list(people.values()), min(self.num_questions, len(people)))
        questions = tuple(self._ask(rng, person, people[person.companion]) for person in asked)
        return Document("".join(paragraphs), questions)

    def _pair(self, rng: random.Random, names: list[str], split: Split) -> list[Person]:
        """Two companions of each other, taken from `names`; nobody, if the split has no companion for the first."""
        first = names.pop()
        fitting = [name for name in names if companions_split(first, name) is split]
        if not fitting:
            return []
        second = rng.choice(fitting)
        names.remove(second)
        return [self._person(rng, first, second, split), self._person(rng, second, first, split)]

    def _person(self, rng: random.Random, name: str, companion: str, split: Split) -> Person:
        chosen = rng.sample(ATTRIBUTES, rng.randint(2, 3))
        facts = tuple(Fact(name, each, draw_value(rng, each, name, split)) for each in chosen)
        return Person(name, facts, companion)

    def _write(self, rng: random.Random, person: Person) -> str:
        """A heading, then what is known of the person among sentences of the log."""
        sentences = [state(rng, fact) for fact in person.facts]
        sentences.append(state(rng, Fact(person.name, COMPANION, person.companion)))
        sentences += [filler.sentence(rng) for _ in range(rng.randint(1, 3))]
        rng.shuffle(sentences)
        return HEADING.format(name=person.name) + " " + " ".join(sentences)

    def _ask(self, rng: random.Random, person: Person, companion: Person) -> Question:
        if self.num_hops == 1:
            fact = rng.choice(person.facts)
            return Question(ask(rng, fact), fact.value)
        fact = rng.choice(companion.facts)
        text = BRIDGED_QUESTION.format(label=fact.attribute.label, name=person.name)
        return Question(text, f"{companion.name} {fact.value}", (fact.value,))


def companions_split(one: str, other: str) -> Split:
    """The split of a pair of companions, whoever is named first."""
    return split_of(*sorted((one, other)))


def qa_1(num_tokens: int, num_questions: int = 1) -> Paragraphs:
    """One hop: a fact of a person."""
    return Paragraphs(num_tokens, num_questions)


def qa_2(num_tokens: int, num_questions: int = 1) -> Paragraphs:
    """Two hops: a fact of a person's companion."""
    return Paragraphs(num_tokens, num_questions, num_hops=2)
