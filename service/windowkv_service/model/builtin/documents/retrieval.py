"""The needle tasks of RULER: eight ways to hide "the number of Marlow is 47 82" in a document.

RULER (Hsieh et al. 2024, arXiv:2404.06654, section 3 and appendix B) hides "One of the special magic numbers for
{key} is: {value}." What differs here is said once per task, at its name below; common to all:

- Words are ours and single tokens; a number is two groups of two digits where RULER has seven digits, a uuid is three
  coded words where RULER has 32 hexadecimal digits: a model of a few million parameters spells no digits.
- Keys of people are surnames (for multikey_2, which needs hundreds, places and code words too).
- A question is a plain question, not RULER's instruction.

Held out: a (key, value) pair, by `split_of`. A held-out document states held-out pairs only.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from windowkv_service.model.builtin.documents import filler, lexicon
from windowkv_service.model.builtin.documents.facts import CODE_WORD, Attribute, Split, draw_value
from windowkv_service.model.builtin.documents.question import Document, Question
from windowkv_service.model.builtin.documents.single_fact import count_tokens, lay_out
from windowkv_service.model.builtin.documents.task import room_for

UUID_WORDS = 3

NUMBER = Attribute(
    "number",
    (lexicon.CABINS, lexicon.CABINS),
    ("The number of {name} is {value}.", "Number of {name}: {value}.", "{name} got the number {value}."),
    ("What is the number of {name}?",),
)
CODE = Attribute(
    "code",
    (lexicon.CODED,) * UUID_WORDS,
    ("The code of {name} is {value}.", "Code of {name}: {value}.", "{name} got the code {value}."),
    ("What is the code of {name}?",),
)

#: Several of one key: all said the same way, as in RULER.
LISTED = replace(CODE_WORD, values=(lexicon.COMMON,), statements=CODE_WORD.statements[:1])

#: The sentences of the noise, said over and over, as RULER's "The grass is green. The sky is blue."
NOISE = (
    "The rain is cold.",
    "The road is long.",
    "The mule is old.",
    "Here we go.",
    "There and back again.",
)

ALL_OF_ONE = "What are all the code words of {name}?"
ONE_OF_EACH = "What are the code words of {names}?"


class Hay(Enum):
    """What stands around the needles."""

    NOISE = "the same few sentences again and again"
    LOG = "sentences of the expedition log, some of them about people"
    NEEDLES = "more needles of the same kind, until the keys run out"


@dataclass(frozen=True)
class Retrieval:
    """What to generate.

    num_tokens: length of the document, kept to within a sentence and a day's heading. needle: what is said of a key.
    keys: the single words a key is drawn from, None for uuids. num_keys: different keys in the document (more, where
    more are asked for or the hay is needles). num_values: values per key, all of them asked for. num_asked: keys in
    one question. num_questions: questions on the document, each about keys of its own while there are enough.
    """

    num_tokens: int
    num_questions: int = 1
    needle: Attribute = NUMBER
    hay: Hay = Hay.LOG
    keys: Sequence[str] | None = lexicon.NAMES
    num_keys: int = 1
    num_values: int = 1
    num_asked: int = 1

    def draw(self, rng: random.Random, split: Split) -> Document:
        """A document of this kind. The same state of `rng` gives the same document."""
        values = self._values(rng, split)
        said = [(key, value, self._state(rng, key, value)) for key in values for value in values[key]]
        rng.shuffle(said)
        sentences = self._fill(rng, [sentence for _, _, sentence in said])
        questions = tuple(
            self._ask(rng, values, asked)
            for asked in self._asked(rng, values)
            if len(asked) == self.num_asked
        )
        if self.hay is Hay.LOG:
            return Document(lay_out(rng, sentences, self.num_tokens), questions)
        return Document(" " + " ".join(sentences), questions)

    def _values(self, rng: random.Random, split: Split) -> dict[str, list[str]]:
        """The document's keys and their values, all different."""
        wanted = max(self.num_keys, self.num_asked)
        if self.hay is Hay.NEEDLES:
            length = count_tokens(self._state(rng, self._key(rng), draw_value(rng, self.needle, "", split)))
            wanted = max(wanted, self.num_tokens // length)
        elif self.num_keys == 1:
            wanted = max(wanted, self.num_questions)
        keys: dict[str, None] = {}
        while len(keys) < (wanted if self.keys is None else min(wanted, len(self.keys))):
            keys[self._key(rng)] = None
        return {key: self._draw_values(rng, key, split) for key in keys}

    def _key(self, rng: random.Random) -> str:
        if self.keys is not None:
            return rng.choice(self.keys)
        return " ".join(rng.choice(lexicon.CODED) for _ in range(UUID_WORDS))

    def _draw_values(self, rng: random.Random, key: str, split: Split) -> list[str]:
        values: list[str] = []
        while len(values) < self.num_values:
            value = draw_value(rng, self.needle, key, split)
            if value not in values:
                values.append(value)
        return values

    def _state(self, rng: random.Random, key: str, value: str) -> str:
        statements = self.needle.statements[:1] if self.hay is Hay.NEEDLES else self.needle.statements
        return rng.choice(statements).format(name=key, value=value)

    def _fill(self, rng: random.Random, needles: list[str]) -> list[str]:
        """The needles in their order with hay between them; noise keeps its own order around them."""
        hay: list[str] = []
        room = room_for(self.num_tokens, needles) if self.hay is Hay.LOG else self.num_tokens
        room -= 0 if self.hay is Hay.LOG else count_tokens(" ".join(needles))
        least = 16 if self.hay is Hay.NEEDLES else 6  # less room than a needle needs stays empty
        while room >= least:
            is_noise = self.hay is Hay.NOISE
            hay.append(NOISE[len(hay) % len(NOISE)] if is_noise else filler.sentence(rng, 0.25))
            room -= count_tokens(hay[-1])
        places = sorted(rng.randint(0, len(hay)) for _ in needles)
        for before, (place, needle) in enumerate(zip(places, needles, strict=True)):
            hay.insert(place + before, needle)
        return hay

    def _asked(self, rng: random.Random, values: dict[str, list[str]]) -> list[list[str]]:
        """The keys of each question."""
        size = self.num_asked
        keys = rng.sample(list(values), len(values))
        return [keys[start : start + size] for start in range(0, len(keys), size)][: self.num_questions]

    def _ask(self, rng: random.Random, values: dict[str, list[str]], asked: list[str]) -> Question:
        if self.num_asked > 1:
            parts = tuple(values[key][0] for key in asked)
            said = (f"{key} {value}" for key, value in zip(asked, parts, strict=True))
            return Question(ONE_OF_EACH.format(names=" and ".join(asked)), " and ".join(said), parts)
        if self.num_values > 1:
            parts = tuple(rng.sample(values[asked[0]], self.num_values))
            said = (f"{asked[0]} {value}" for value in parts)
            return Question(ALL_OF_ONE.format(name=asked[0]), ", ".join(said), parts, any_order=True)
        text = rng.choice(self.needle.questions).format(name=asked[0])
        return Question(text, values[asked[0]][0])


def single_1(num_tokens: int, num_questions: int = 1) -> Retrieval:
    """RULER's niah_single_1: a word in repeated noise."""
    return Retrieval(num_tokens, num_questions, CODE_WORD, Hay.NOISE)


def single_2(num_tokens: int, num_questions: int = 1) -> Retrieval:
    """RULER's niah_single_2: a number in essays; here in an expedition log that names other people too."""
    return Retrieval(num_tokens, num_questions)


def single_3(num_tokens: int, num_questions: int = 1) -> Retrieval:
    """RULER's niah_single_3: a uuid in essays."""
    return Retrieval(num_tokens, num_questions, CODE)


def multikey_1(num_tokens: int, num_questions: int = 1) -> Retrieval:
    """RULER's niah_multikey_1: four keys with a number each, one asked."""
    return Retrieval(num_tokens, num_questions, num_keys=4)


def multikey_2(num_tokens: int, num_questions: int = 1) -> Retrieval:
    """RULER's niah_multikey_2: nothing but needles. Past 6,000 tokens the 662 keys are used up and log is mixed in."""
    keys = lexicon.NAMES + lexicon.PLACES + lexicon.CODE_WORDS
    return Retrieval(num_tokens, num_questions, hay=Hay.NEEDLES, keys=keys)


def multikey_3(num_tokens: int, num_questions: int = 1) -> Retrieval:
    """RULER's niah_multikey_3: nothing but needles, keys and values are uuids."""
    return Retrieval(num_tokens, num_questions, CODE, Hay.NEEDLES, None)


def multivalue(num_tokens: int, num_questions: int = 1) -> Retrieval:
    """RULER's niah_multivalue: one key, four values in four sentences; all are asked, in any order.

    Values are code words, not numbers: one token each, so that an unordered answer has four steps. Three other keys
    with four values each stand in the document (RULER: none).
    """
    return Retrieval(num_tokens, num_questions, LISTED, num_keys=4, num_values=4)


def multiquery(num_tokens: int, num_questions: int = 1) -> Retrieval:
    """RULER's niah_multiquery: four keys asked in one question, their values in any order.

    The question lists the names without commas, so that all four stand close to the answer's beginning. Four more keys
    stand in the document (RULER: none).
    """
    return Retrieval(num_tokens, num_questions, CODE_WORD, num_keys=max(8, 4 * num_questions), num_asked=4)
