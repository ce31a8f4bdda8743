"""Exact-answer accuracy on held-out documents, by length: `python -m windowkv_service.model.builtin.evaluate`."""

import argparse
import copy
import random
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, DynamicCache, LlamaForCausalLM, PreTrainedTokenizerBase

from windowkv_service.model.builtin.documents import Document, SingleFact, Split, question_suffix

NUM_TOKENS = (500, 1000, 2000, 4000, 6000)
MAX_ANSWER_TOKENS = 8
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


def count_right(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    num_tokens: int,
    num_documents: int,
    num_questions: int,
) -> tuple[int, int]:
    """(exact answers, questions) over `num_documents` held-out documents of one length."""
    right = asked = 0
    for seed in range(num_documents):
        document = held_out_document(num_tokens, seed, num_questions)
        reader = Reader(model, tokenizer, document.text)
        right += sum(reader.answer(question.text) == question.answer for question in document.questions)
        asked += len(document.questions)
    return right, asked


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(__file__).parent)
    parser.add_argument("--documents", type=int, default=20, help="documents per length")
    parser.add_argument("--questions", type=int, default=10, help="questions per document")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = LlamaForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    sys.stdout.write("| document tokens | questions | exact answers |\n|---|---|---|\n")
    for num_tokens in NUM_TOKENS:
        right, asked = count_right(model, tokenizer, num_tokens, args.documents, args.questions)
        sys.stdout.write(f"| {num_tokens} | {asked} | {right / asked:.1%} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
