"""The half of compare_kvpress.py that runs in kvpress's own environment, whose transformers is older than ours.

    python -P benchmarks/press_runs.py FOLDER

FOLDER holds cases.json (models, token ids, presses with their options, ratios of what is removed). For every case it
gains a file of tensors: scores [layers, KV heads, tokens] where the press makes any, what it kept at every ratio, and
of which heads that can be told.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kvpress
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, DynamicCache


def make_press(case: dict[str, Any], removed: float) -> Any:
    options = {**case["options"], "compression_ratio": removed}
    press = getattr(kvpress, case["press"])(**options)
    return kvpress.AdaKVPress(press, alpha_safeguard=case["alpha"]) if "alpha" in case else press


@contextmanager
def recorded_scores(press: Any) -> Iterator[list[torch.Tensor]]:
    """What the press scores, layer by layer."""
    scores: list[torch.Tensor] = []
    scorer = getattr(press, "press", press)
    if isinstance(press, kvpress.KVzipPress):
        finish = press.compress_post

        def finish_and_record(model: Any) -> None:
            scores.extend(layer[0].clone() for layer in press.score_val)
            finish(model)

        press.compress_post = finish_and_record
    else:
        score = scorer.score

        def score_and_record(*arguments: Any) -> torch.Tensor:
            made = score(*arguments)
            scores.append(made[0].clone())  # AdaKV writes into what it is given
            return made

        scorer.score = score_and_record
    yield scores


def kept_tokens(model: Any, cache: DynamicCache, full: DynamicCache) -> torch.Tensor:
    """bool [layers, KV heads, tokens]: whose keys are still there, and not hidden from attention."""
    kept = []
    for layer, before, after in zip(model.model.layers, full.layers, cache.layers, strict=True):
        same = (before.keys[0][:, :, None] == after.keys[0][:, None]).all(dim=-1)
        kept.append(same.any(dim=-1))
        hidden = getattr(layer.self_attn, "masked_key_indices", None)
        if hidden is not None:
            kept[-1][hidden[1], hidden[2]] = False
            layer.self_attn.masked_key_indices = None
    return torch.stack(kept)


def told_heads(full: DynamicCache) -> torch.Tensor:
    """bool [layers, KV heads]: whose keys all differ, so that those that are left say which tokens stayed."""
    heads = [[len(keys.unique(dim=0)) == len(keys) for keys in layer.keys[0]] for layer in full.layers]
    return torch.tensor(heads)


@torch.inference_mode()
def run_case(
    model: Any, token_ids: torch.Tensor, case: dict[str, Any], ratios: list[float]
) -> dict[str, torch.Tensor]:
    model.set_attn_implementation(case.get("attention", "sdpa"))
    full = DynamicCache()
    model.model(input_ids=token_ids, past_key_values=full)
    found: dict[str, torch.Tensor] = {"told": told_heads(full)}
    for removed in ratios:
        press, cache = make_press(case, removed), DynamicCache()
        with recorded_scores(press) as scores, press(model):
            model.model(input_ids=token_ids, past_key_values=cache)
        found["scores"] = torch.stack(scores).float()
        found[f"kept/{removed}"] = kept_tokens(model, cache, full)
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    plan = json.loads((folder / "cases.json").read_text())
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)  # kvpress says at every KVzip that it takes long
    for number, (name, path) in enumerate(plan["models"].items()):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        token_ids = torch.tensor([plan["token_ids"][name]])
        for case in plan["cases"]:
            found = run_case(model, token_ids, case, plan["removed_ratios"])
            save_file(found, folder / f"{number}-{case['name']}.safetensors")
    versions = {module.__name__: module.__version__ for module in (torch, transformers)}
    versions["kvpress"] = version("kvpress")
    (folder / "versions.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main()
