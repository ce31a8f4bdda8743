"""Trains the built-in model on one CPU core: `python -m windowkv_service.model.builtin.train --out DIR`.

The same seed gives the same run on the same versions of torch and Python, however long it takes: twelve minutes of
process time for the default arguments, in 900 steps.
"""

import argparse
import random
import time
from collections import deque
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from windowkv_service.model.builtin.curriculum import Stage, stages
from windowkv_service.model.builtin.initialisation import start_with_lookup
from windowkv_service.model.builtin.packing import IGNORED, Batch, Packer
from windowkv_service.model.builtin.tokenizer import build_tokenizer

MAX_POSITIONS = 8192
LANGUAGE_WEIGHT = 0.1  # of the language-model loss, beside the answers' loss
PASS_ACCURACY = 0.9
PASS_WINDOW = 25  # batches the running accuracy is taken over
PATIENCE = 1000  # steps after which a stage is left unpassed
WARMUP_STEPS = 100
REPORT_STEPS = 25


def build_model(tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int, heads: int) -> LlamaForCausalLM:
    """A stock Llama with two query heads per KV head and tied embeddings, freshly initialised."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=MAX_POSITIONS,
        # A slow rotation leaves most of a head's dimensions to content over thousands of positions.
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=hidden**-0.5,
    )
    model = LlamaForCausalLM(config)
    start_with_lookup(model)
    return model


class Trainer:
    """Takes a model through the curriculum, one stage after the other."""

    def __init__(
        self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rng: random.Random
    ) -> None:
        self._model, self._packer, self._rng = model, Packer(tokenizer), rng
        self._optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
        self._step, self._began = 0, time.process_time()

    def run(self, number: int, stage: Stage) -> None:
        """Trains until the stage is passed, or for its number of steps."""
        recent: deque[float] = deque(maxlen=PASS_WINDOW)
        last = stage.num_steps or PATIENCE
        for step in range(last):
            fall = 1.0 - 0.9 * step / last if stage.num_steps else 1.0
            batch = self._packer.batch(self._rng, stage.draw_documents(self._rng), stage.terse_ratio)
            recent.append(self._train_step(batch, stage.learning_rate * fall))
            accuracy = sum(recent) / len(recent)
            if self._step % REPORT_STEPS == 0:
                self._report(number, stage, batch, accuracy)
            if not stage.num_steps and len(recent) == PASS_WINDOW and accuracy >= PASS_ACCURACY:
                break

    def _train_step(self, batch: Batch, learning_rate: float) -> float:
        """One step of the optimizer; returns the share of answer tokens predicted right."""
        self._step += 1
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, self._step / WARMUP_STEPS)
        loss, accuracy = _loss_and_accuracy(self._model, batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        return accuracy

    def _report(self, number: int, stage: Stage, batch: Batch, accuracy: float) -> None:
        shape = "x".join(str(size) for size in batch.token_ids.shape)
        spent = time.process_time() - self._began
        longest = max(stage.lengths)
        print(
            f"{spent:6.0f} s  step {self._step:5d}  stage {number:2d}  up to {longest:4d} tokens  "
            f"batch {shape:8s}  right {accuracy:.3f}",
            flush=True,
        )


def _loss_and_accuracy(model: LlamaForCausalLM, batch: Batch) -> tuple[Tensor, float]:
    """Answer loss plus a tenth of the language-model loss; the share of answer tokens (<eos> apart) that is right."""
    has_label = batch.labels != IGNORED
    labels, is_answer = batch.labels[has_label], batch.is_answer[has_label]  # [num_labels]
    hidden = model.model(input_ids=batch.token_ids, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[has_label])  # [num_labels, vocab_size]
    losses = F.cross_entropy(logits, labels, reduction="none")
    loss = losses[is_answer].mean() + LANGUAGE_WEIGHT * losses.mean()
    is_word = is_answer & (labels != model.config.eos_token_id)
    accuracy = (logits.detach()[is_word].argmax(-1) == labels[is_word]).float().mean().item()
    return loss, accuracy


def train(args: argparse.Namespace) -> None:
    """Runs the curriculum and saves model and tokenizer to `args.out` where `from_pretrained` finds them."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    tokenizer = build_tokenizer(MAX_POSITIONS)
    if args.resume:
        model = LlamaForCausalLM.from_pretrained(args.resume, dtype=torch.float32)
    else:
        model = build_model(tokenizer, args.hidden, args.layers, args.heads)
    print(f"{model.num_parameters():,} parameters, vocabulary {len(tokenizer)}", flush=True)
    trainer = Trainer(model, tokenizer, random.Random(args.seed))
    for number, stage in enumerate(stages(args.final_steps)):
        if number >= args.first_stage:
            trainer.run(number, stage)
            model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--final-steps", type=int, default=220, help="steps of the last stage")
    parser.add_argument("--first-stage", type=int, default=0, help="skip the stages before this one")
    parser.add_argument("--resume", type=Path, default=None, help="start from the weights in this directory")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
