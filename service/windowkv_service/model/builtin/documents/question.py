"""How a document, its questions and their answers are written one after the other.

A document is cached first, as plain text after <bos>. A question follows as `question_suffix(question)`, the model
answers with `answer_text(answer)` and <eos>, and the next question's suffix may follow at once, with or without the
<eos> in between:

    <bos>{document}\\nQuestion: {question}\\nAnswer: {answer}<eos>\\nQuestion: {question}\\nAnswer:

A suffix starts with a newline, and the tokenizer makes every newline a token of its own. So tokenizing the document
and the suffix apart gives the same tokens as tokenizing both together.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A question about a document and its one right answer (no surrounding spaces).

    answer: the full text that the model is trained to say. parts: the expected strings that are scored, each a word or
    a few words of `answer`; by default the answer itself. Where the order of the parts is free, `answer` has one order.
    """

    text: str
    answer: str
    parts: tuple[str, ...] = ()
    any_order: bool = False

    def __post_init__(self) -> None:
        if not self.parts:
            object.__setattr__(self, "parts", (self.answer,))


@dataclass(frozen=True)
class Document:
    """A generated document and questions about it, in random order."""

    text: str
    questions: tuple[Question, ...]


def question_suffix(question: str) -> str:
    """The text to append to a cached document to ask `question`; the answer is generated right behind it."""
    return f"\nQuestion: {question}\nAnswer:"


def answer_text(answer: str) -> str:
    """The text the model generates before <eos>: the answer behind one space."""
    return f" {answer}"
