"""Scores with the full cache on held-out documents, by task and length.

python -m windowkv_service.model.builtin.evaluate
"""

import argparse
import copy
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, DynamicCache, LlamaForCausalLM, PreTrainedTokenizerBase

from windowkv_service.model.builtin.documents import Document, SingleFact, Split, question_suffix, tasks

SINGLE_FACT = "single_fact"
NUM_TOKENS = (500, 1000, 2000, 4000, 8000)
MAX_ANSWER_TOKENS = 32
HELD_OUT_SEED = 990_000  # training seeds are small; see the model card


class Reader:
    """A document read once, to be asked many questions: the full cache is what every answer starts from."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._cache = DynamicCache(config=model.config)
        token_ids = torch.tensor([tokenizer(text).input_ids])
        self.num_tokens = token_ids.shape[1]
        with torch.inference_mode():
            model(token_ids, past_key_values=self._cache, logits_to_keep=1)

    def answer(self, question: str) -> str:
        """The greedy answer up to <eos>, without surrounding spaces."""
        suffix = self._tokenizer(question_suffix(question), add_special_tokens=False).input_ids
        cache = copy.deepcopy(self._cache)
        token_ids: list[int] = []
        step = torch.tensor([suffix])
        with torch.inference_mode():
            while len(token_ids) < MAX_ANSWER_TOKENS:
                next_id = (
                    self._model(step, past_key_values=cache, logits_to_keep=1).logits[0, -1].argmax().item()
                )
                if next_id == self._tokenizer.eos_token_id:
                    break
                token_ids.append(next_id)
                step = torch.tensor([[next_id]])
        return str(self._tokenizer.decode(token_ids)).strip()


def held_out_document(num_tokens: int, seed: int, num_questions: int) -> Document:
    """An evaluation document: held-out pairs of name and value, a dozen facts and one more per 100 tokens."""
    task = SingleFact(num_tokens, num_questions, num_facts=12 + num_tokens // 100)
    return task.draw(random.Random(HELD_OUT_SEED + seed), Split.HELD_OUT)


def share_of_parts(answer: str, parts: Sequence[str]) -> float:
    """The share of the expected parts that stand in the answer's first line as whole words."""
    first_line = answer.strip().partition("\n")[0]
    found = sum(re.search(rf"\b{re.escape(part)}\b", first_line) is not None for part in parts)
    return found / len(parts)


def score(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    kind: str,
    num_tokens: int,
    num_documents: int,
    num_questions: int,
) -> tuple[float, int]:
    """(mean share of parts, questions) over `num_documents` held-out documents of one task and length."""
    shares: list[float] = []
    for seed in range(num_documents):
        if kind == SINGLE_FACT:
            document = held_out_document(num_tokens, seed, num_questions)
        else:
            task = tasks()[kind](num_tokens, 1 if kind.startswith("niah_single") else num_questions)
            document = task.draw(random.Random(HELD_OUT_SEED + seed), Split.HELD_OUT)
        reader = Reader(model, tokenizer, document.text)
        shares += [share_of_parts(reader.answer(each.text), each.parts) for each in document.questions]
    return sum(shares) / len(shares), len(shares)


def main() -> None:
    """Prints the table: one row per task, one column per length."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path(__file__).parent)
    parser.add_argument("--documents", type=int, default=20, help="documents per task and length")
    parser.add_argument(
        "--questions", type=int, default=4, help="questions per document, where a task has several"
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=NUM_TOKENS)
    parser.add_argument("--tasks", nargs="+", default=[SINGLE_FACT, *tasks()])
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = LlamaForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    sys.stdout.write(f"| task | {' | '.join(map(str, args.lengths))} |\n|---|{'---|' * len(args.lengths)}\n")
    for kind in args.tasks:
        sys.stdout.write(f"| {kind} |")
        for num_tokens in args.lengths:
            share, _ = score(model, tokenizer, kind, num_tokens, args.documents, args.questions)
            sys.stdout.write(f" {100 * share:.1f} |")
            sys.stdout.flush()
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
