"""The order in which training meets its documents: short and dense first, then richer, then longer."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from windowkv_service.model.builtin.documents import ATTRIBUTES, Attribute, Document, SingleFact, Split

_CODE_WORD = ATTRIBUTES[:1]
_MAX_QUESTIONS = 32


@dataclass(frozen=True)
class Stage:
    """One step of the curriculum.

    lengths: document lengths in tokens, one of them drawn per batch. num_sequences: documents per batch, one number
    per length. num_steps: how long the stage lasts, its learning rate falling to a tenth; None: until the running
    accuracy is good enough. terse_ratio: share of the documents asked with the bare name, to let the lookup form
    first. num_statements, num_phrasings: how many ways to state and to ask for an attribute are used, None for all.
    """

    lengths: tuple[int, ...]
    num_sequences: tuple[int, ...]
    learning_rate: float
    attributes: Sequence[Attribute] = field(default=ATTRIBUTES, repr=False)
    num_steps: int | None = None
    terse_ratio: float = 0.0
    distractor_ratio: float = 0.25
    num_statements: int | None = None
    num_phrasings: int | None = None

    def draw_documents(self, rng: random.Random) -> list[Document]:
        """One batch of training documents of about equal length."""
        choice = rng.randrange(len(self.lengths))
        return [self._draw_document(rng, self.lengths[choice]) for _ in range(self.num_sequences[choice])]

    def _draw_document(self, rng: random.Random, length: int) -> Document:
        """Half of the documents are nothing but facts; a fifth are shorter, so that short ones are not forgotten."""
        num_tokens = rng.randint(32, length) if rng.random() < 0.2 else length
        num_facts = None if rng.random() < 0.5 else rng.randint(2, 4 + num_tokens // 50)
        task = SingleFact(
            num_tokens=num_tokens,
            num_questions=max(4, min(num_tokens // 16, _MAX_QUESTIONS)),
            num_facts=num_facts,
            attributes=self.attributes,
            distractor_ratio=self.distractor_ratio,
            num_statements=self.num_statements,
            num_phrasings=self.num_phrasings,
        )
        return task.draw(rng, Split.TRAIN)


def stages(num_final_steps: int) -> list[Stage]:
    """The whole curriculum: the lookup, all attributes, the length doubling, then `num_final_steps` of all lengths."""
    lookup = [
        Stage((32,), (24,), 2e-3, _CODE_WORD, None, 1.0, 0.0, num_statements=2, num_phrasings=1),
        Stage((32,), (24,), 2e-3, _CODE_WORD, None, 0.3, 0.0, num_statements=2, num_phrasings=1),
        Stage((32,), (24,), 2e-3, _CODE_WORD, None, 0.2, 0.0),
    ]
    rich = [Stage((64,), (32,), 2e-3, distractor_ratio=0.0), Stage((64,), (32,), 2e-3)]
    short = [Stage((128,), (24,), 2e-3), Stage((256,), (16,), 2e-3), Stage((512,), (10,), 2e-3)]
    long = [Stage((1024,), (6,), 1e-3), Stage((2048,), (4,), 1e-3)]
    final = Stage((256, 1024, 2048, 4096, 6144), (16, 6, 4, 2, 1), 1e-3, num_steps=num_final_steps)
    return [*lookup, *rich, *short, *long, final]
