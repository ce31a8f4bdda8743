"""Trains the built-in model on one CPU core: `python -m windowkv_service.model.builtin.train --out DIR`.

The same seed gives the same run on the same versions of torch and Python, however long it takes: twelve minutes of
process time for the default arguments, in 900 steps.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from windowkv_service.model.builtin.curriculum import COUNTING, EMPHASIS, SINGLE_FACT, Stage, stages
from windowkv_service.model.builtin.documents import tasks
from windowkv_service.model.builtin.initialisation import start_with_circuits
from windowkv_service.model.builtin.listing import with_listing_layer
from windowkv_service.model.builtin.packing import IGNORED, Batch, Packer
from windowkv_service.model.builtin.tokenizer import build_tokenizer

MAX_POSITIONS = 16_384
ROPE_BASE = 1e9
HEAD_SHARE = 2  # of hidden / heads: what a head compares must tell hundreds of names apart
LANGUAGE_WEIGHT = 0.1  # of the language-model loss, beside the answers' loss
LANGUAGE_SAMPLE = 0.25  # share of the tokens it is taken over
RUNNING = 20  # documents the running accuracy of a task is taken over
FLOOR = 0.1  # how often a task comes that is all right, against 1 for one that is all wrong
WARMUP_STEPS = 50
# What the listing layer's gates are fitted on: (documents, tokens of each) per task.
COUNTING_EXAMPLES = ((60, 128), (20, 400), (5, 1500), (3, 4000))
OTHER_EXAMPLES = ((30, 128), (10, 400), (3, 1500))
REPORT_STEPS = 20
SAVE_STEPS = 50


def build_model(tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int, heads: int) -> LlamaForCausalLM:
    """A stock Llama with two query heads per KV head and tied embeddings, freshly initialised."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden // 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=HEAD_SHARE * hidden // heads,
        max_position_embeddings=MAX_POSITIONS,
        # A slow rotation leaves most of a head's dimensions to content over thousands of positions.
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=hidden**-0.5,
    )
    model = LlamaForCausalLM(config)
    (colon_id,) = tokenizer(":", add_special_tokens=False).input_ids
    start_with_circuits(model, colon_id)
    return model


class Trainer:
    """Takes a model through the curriculum, one stage after the other."""

    def __init__(
        self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rng: random.Random
    ) -> None:
        self._model, self._packer, self._rng = model, Packer(tokenizer), rng
        self._optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
        self._step, self._began = 0, time.process_time()
        self._accuracy = dict.fromkeys((SINGLE_FACT, *tasks()), 0.0)  # running, per task

    def run(self, number: int, stage: Stage, save: Callable[[], None]) -> None:
        """Trains until all tasks of the stage are passed, or for its number of steps; saves now and then."""
        for step in range(stage.num_steps):
            fall = 1.0 - (1.0 - stage.final_share) * step / stage.num_steps
            # Hard tasks come more often.
            weights = {
                kind: (FLOOR + 1.0 - accuracy) * EMPHASIS.get(kind, 1.0)
                for kind, accuracy in self._accuracy.items()
            }
            drawn = stage.draw_documents(self._rng, weights)
            batch = self._packer.batch(self._rng, [document for _, document in drawn], stage.terse_ratio)
            with torch.autocast("cpu", torch.bfloat16):
                rights = self._train_step(batch, [kind for kind, _ in drawn], stage.learning_rate * fall)
            for (kind, _), right in zip(drawn, rights, strict=True):
                self._accuracy[kind] += (right - self._accuracy[kind]) / RUNNING
            if self._step % REPORT_STEPS == 0:
                self._report(number, stage, batch)
            if self._step % SAVE_STEPS == 0:
                save()
            if min(self._accuracy[kind] for kind in stage.kinds) >= stage.pass_accuracy:
                break
        save()

    def _train_step(self, batch: Batch, kinds: list[str], learning_rate: float) -> list[float]:
        """One step of the optimizer; returns per sequence the share of answer tokens predicted right."""
        self._step += 1
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, self._step / WARMUP_STEPS)
        loss, rights = loss_and_accuracy(self._model, batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        return rights

    def _report(self, number: int, stage: Stage, batch: Batch) -> None:
        shape = "x".join(str(size) for size in batch.token_ids.shape)
        spent = time.process_time() - self._began
        right = "  ".join(f"{kind.removeprefix('niah_')} {self._accuracy[kind]:.2f}" for kind in stage.kinds)
        print(
            f"{spent:6.0f} s  step {self._step:5d}  stage {number:2d}  batch {shape:8s}  {right}", flush=True
        )


def loss_and_accuracy(model: LlamaForCausalLM, batch: Batch) -> tuple[Tensor, list[float]]:
    """The mean over sequences of their answers' mean loss, plus a share of the language-model loss.

    Where an answer may come in any order, each of its parts that is still to come is right, and what it has said is
    not to be said again: that is for the last layer to see to. The second result is the share of right answer tokens
    (<eos> apart) per sequence.
    """
    hidden = model.model(input_ids=batch.token_ids, use_cache=False).last_hidden_state
    is_answer = batch.answers > 0  # [num_sequences, num_tokens]
    logits = model.lm_head(hidden[is_answer]).float()  # [num_answer_tokens, vocab_size]
    labels, rows = batch.labels[is_answer], is_answer.nonzero()[:, 0]
    is_same = _same_choice(batch.choices[is_answer], rows)
    right = is_same.triu() | torch.eye(len(rows), dtype=torch.bool)
    here, before = is_same.tril(-1).nonzero().unbind(1)
    possible = logits.index_put((here, labels[before]), torch.tensor(-torch.inf))
    mass = logits[:, labels].masked_fill(~right, -torch.inf).logsumexp(1)
    counts = is_answer.sum(1).float()
    loss = ((possible.logsumexp(1) - mass) / counts[rows]).sum() / len(counts)
    is_other = ~is_answer & (batch.labels != IGNORED) & (torch.rand(is_answer.shape) < LANGUAGE_SAMPLE)
    if is_other.any():
        loss = loss + LANGUAGE_WEIGHT * F.cross_entropy(
            model.lm_head(hidden[is_other]), batch.labels[is_other]
        )
    is_right = (right & (possible.argmax(1)[:, None] == labels)).any(1)
    eos = model.config.eos_token_id
    shares = [is_right[(rows == row) & (labels != eos)].float().mean().item() for row in range(len(counts))]
    return loss, shares


def _same_choice(choices: Tensor, rows: Tensor) -> Tensor:
    """Which answer tokens may change places; [num_answer_tokens, num_answer_tokens]."""
    return (choices[:, None] == choices) & (choices > 0) & (rows[:, None] == rows)


def train(args: argparse.Namespace) -> None:
    """Runs the curriculum and saves model and tokenizer to `args.out` where `from_pretrained` finds them."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    tokenizer = build_tokenizer(MAX_POSITIONS)
    if args.resume:
        model = LlamaForCausalLM.from_pretrained(args.resume, dtype=torch.float32)
    else:
        model = build_model(tokenizer, args.hidden, args.layers, args.heads)
    tokenizer.save_pretrained(args.out)
    print(f"{model.num_parameters():,} parameters, vocabulary {len(tokenizer)}", flush=True)
    trainer = Trainer(model, tokenizer, random.Random(args.seed))
    for number, stage in enumerate(stages(args.final_steps)):
        if number >= args.first_stage:
            trainer.run(number, stage, lambda: model.save_pretrained(args.out / "lookups"))
    packer, rng, others = Packer(tokenizer), random.Random(args.seed), set(tasks()) - COUNTING
    counting = _examples(packer, rng, sorted(COUNTING), COUNTING_EXAMPLES)
    listing = with_listing_layer(
        model, tokenizer, counting, _examples(packer, rng, [SINGLE_FACT, *sorted(others)], OTHER_EXAMPLES)
    )
    listing.to(torch.bfloat16).save_pretrained(args.out)


def _examples(
    packer: Packer, rng: random.Random, kinds: Iterable[str], shapes: Sequence[tuple[int, int]]
) -> list[Batch]:
    """Training documents, (documents, tokens of each) per task and shape."""
    singles = [
        Stage((length,), (num_documents,), 0.0, 0, (kind,))
        for kind in kinds
        for num_documents, length in shapes
    ]
    drawn = [stage.draw_documents(rng, {stage.kinds[0]: 1.0}) for stage in singles]
    return [packer.batch(rng, [document for _, document in each], 0.0) for each in drawn]


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--final-steps", type=int, default=900, help="steps of the last stage")
    parser.add_argument("--first-stage", type=int, default=0, help="skip the stages before this one")
    parser.add_argument("--resume", type=Path, default=None, help="start from the weights in this directory")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
