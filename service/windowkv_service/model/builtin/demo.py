"""The demo document: one held-out log with questions, kept as JSON so that clients without the generator can read it.

`python -m windowkv_service.model.builtin.demo` writes `demo.json` anew. It is drawn once from a fixed seed, whatever
the model makes of it.
"""

import json
from pathlib import Path

from windowkv_service.model.builtin.documents import Document, Question
from windowkv_service.model.builtin.evaluate import held_out_document

PATH = Path(__file__).parent / "demo.json"
_SEED = 4_000
_NUM_TOKENS = 4_000
_NUM_QUESTIONS = 12


def load() -> Document:
    """The demo document and its questions with the expected answers."""
    raw = json.loads(PATH.read_text(encoding="utf-8"))
    return Document(raw["text"], tuple(Question(**each) for each in raw["questions"]))


def generate() -> Document:
    """The same document, drawn from its seed."""
    return held_out_document(_NUM_TOKENS, _SEED, _NUM_QUESTIONS)


if __name__ == "__main__":
    drawn = generate()
    questions = [{"text": question.text, "answer": question.answer} for question in drawn.questions]
    PATH.write_text(
        json.dumps({"text": drawn.text, "questions": questions}, indent=1) + "\n", encoding="utf-8"
    )
