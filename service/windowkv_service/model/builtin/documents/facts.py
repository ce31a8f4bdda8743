"""Facts: who has which code word, cargo, cabin and home, how a sentence says it and how a question asks for it."""

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from windowkv_service.model.builtin.documents import lexicon

_HELD_OUT_SHARE = 8  # one pair of name and value in eight is never trained on


class Split(Enum):
    """Which (name, value) pairs a document may state: the trained ones or the held-out ones. They never meet."""

    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclass(frozen=True)
class Attribute:
    """One kind of thing a document says about a person.

    `statements` and `questions` are templates with the slots {name} and {value}; `values` holds one word list per
    word of the value. The first statement names the attribute, the second is the tersest one.
    """

    label: str
    values: tuple[Sequence[str], ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """A person, an attribute and its value, such as (Marlow, code word, amber)."""

    name: str
    attribute: Attribute
    value: str


CODE_WORD = Attribute(
    "code word",
    (lexicon.CODE_WORDS,),
    (
        "The code word of {name} is {value}.",
        "They call {name} {value}.",
        "Code word for {name}: {value}.",
        "{name} answers to {value}.",
        "{name} chose the code word {value}.",
    ),
    ("What is the code word of {name}?", "Which code word does {name} use?"),
)
CARGO = Attribute(
    "cargo",
    (lexicon.QUALITIES, lexicon.THINGS),
    (
        "The cargo of {name} is a {value}.",
        "We gave {name} a {value}.",
        "Cargo for {name}: {value}.",
        "{name} carries a {value}.",
        "{name} came with a {value}.",
    ),
    ("What is the cargo of {name}?", "What does {name} carry?"),
)
CABIN = Attribute(
    "cabin",
    (lexicon.CABINS,),
    (
        "The cabin of {name} is {value}.",
        "They put {name} in {value}.",
        "Cabin for {name}: {value}.",
        "{name} sleeps in cabin {value}.",
        "{name} has the key to cabin {value}.",
    ),
    ("What is the cabin of {name}?", "In which cabin does {name} sleep?"),
)
HOME = Attribute(
    "home",
    (lexicon.PLACES,),
    (
        "The home of {name} is {value}.",
        "{name} left {value}.",
        "Home of {name}: {value}.",
        "{name} comes from {value}.",
        "{name} was born in {value}.",
    ),
    ("What is the home of {name}?", "Where does {name} come from?"),
)
ATTRIBUTES = (CODE_WORD, CARGO, CABIN, HOME)


def split_of(name: str, value: str) -> Split:
    """The split a (name, value) pair belongs to: by checksum, so it needs no list and never changes."""
    checksum = zlib.crc32(f"{name} {value}".encode())
    return Split.HELD_OUT if checksum % _HELD_OUT_SHARE == 0 else Split.TRAIN


def draw_value(rng: random.Random, attribute: Attribute, name: str, split: Split) -> str:
    """A value of the attribute that `name` may have in this split."""
    while True:
        value = " ".join(rng.choice(words) for words in attribute.values)
        if split_of(name, value) is split:
            return value


def draw_facts(
    rng: random.Random, num_facts: int, split: Split, attributes: Sequence[Attribute]
) -> list[Fact]:
    """`num_facts` facts with distinct (name, attribute) pairs, in random order.

    With several attributes about half of the facts share their person with another fact. Raises ValueError if there
    are not enough pairs.
    """
    if num_facts > len(lexicon.NAMES) * len(attributes):
        raise ValueError(
            f"{num_facts} facts need more than {len(lexicon.NAMES)} names x {len(attributes)} attributes"
        )
    most = min(num_facts, len(lexicon.NAMES))
    fewest = -(-num_facts // len(attributes))
    num_names = rng.randint(max(fewest, min(most, 2 * num_facts // 3)), most)
    names = rng.sample(lexicon.NAMES, num_names)
    first = [(name, rng.choice(attributes)) for name in names]
    taken = set(first)
    others = [(name, each) for name in names for each in attributes if (name, each) not in taken]
    pairs = first + rng.sample(others, num_facts - num_names)
    rng.shuffle(pairs)
    return [Fact(name, each, draw_value(rng, each, name, split)) for name, each in pairs]


def state(rng: random.Random, fact: Fact, num_statements: int | None = None) -> str:
    """One sentence that states the fact, in one of its first `num_statements` phrasings (default: all)."""
    template = rng.choice(fact.attribute.statements[:num_statements])
    return template.format(name=fact.name, value=fact.value)


def ask(rng: random.Random, fact: Fact, num_phrasings: int | None = None) -> str:
    """One question about the fact, in one of its first `num_phrasings` phrasings (default: all)."""
    return rng.choice(fact.attribute.questions[:num_phrasings]).format(name=fact.name)
