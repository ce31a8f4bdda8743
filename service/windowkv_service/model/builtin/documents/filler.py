"""Filler: readable sentences that state no fact a question asks for."""

import random
import re

from windowkv_service.model.builtin.documents import lexicon

_SLOTS = {
    "scene": lexicon.SCENES,
    "look": lexicon.LOOKS,
    "weather": lexicon.WEATHERS,
    "time": lexicon.TIMES,
    "beast": lexicon.BEASTS,
    "food": lexicon.FOODS,
    "tool": lexicon.TOOLS,
    "small": lexicon.SMALL,
    "deed": lexicon.DEEDS,
    "name": lexicon.NAMES,
    "quality": lexicon.QUALITIES,
    "thing": lexicon.THINGS,
    "place": lexicon.PLACES,
}

SENTENCES = (
    "The {look} {scene} lay still in the {weather}.",
    "There was {weather} over the {scene} until {time}.",
    "We ate {food} and {food} by the {scene}.",
    "At {time} the {beast} ran off towards the {look} {scene}.",
    "It took {small} hours to mend the {tool}.",
    "The {tool} broke again near the {scene}, and nobody was surprised.",
    "By {time} the {weather} had gone and the {scene} was {look} again.",
    "Some of us {deed} while the others {deed}.",
    "A {beast} watched us from the {scene}.",
    "We crossed the {look} {scene} before {time}.",
    "Nobody saw the {beast} after {time}.",
    "The road to the {scene} was {look} and {look}.",
    "After {small} days of {weather} we were glad of the {food}.",
    "The cook made {food} for {small} people.",
    "All {time} we {deed} beside the {tool}.",
    "Another day of {weather}, another pot of {food}.",
)

#: Sentences that look like facts and state none that is asked for: a person or a thing, never both.
DISTRACTORS = (
    "{name} {deed} near the {scene}.",
    "In the {weather}, {name} {deed} until {time}.",
    "We saw {name} with the {beast} at {time}.",
    "A {quality} {thing} stood by the {scene}.",
    "Somebody had left a {quality} {thing} in the {tool}.",
    "The ferry from {place} was late.",
)

_SLOT = re.compile(r"\{(\w+)\}")


def sentence(rng: random.Random, distractor_ratio: float = 0.0) -> str:
    """One filler sentence; `distractor_ratio` of them mention a person, a thing or a place."""
    pool = DISTRACTORS if rng.random() < distractor_ratio else SENTENCES
    return _SLOT.sub(lambda slot: rng.choice(_SLOTS[slot[1]]), rng.choice(pool))
