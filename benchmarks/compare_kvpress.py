"""Our token methods beside NVIDIA's kvpress, on the same weights and the same tokens.

    make compare-kvpress

Both sides read the prompt in fp32 and choose at several ratios; blocks of one token make our budgets theirs to the
token. kvpress runs in an environment of its own (press_runs.py); files are all that passes between the two. Written to
benchmarks/results/kvpress.md and .json: per method the share of kept tokens that agree, and how far scores differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from press_cases import CASES, Case
from press_models import BUILTIN_NAME, save_models
from press_table import render
from read_prompt import ReadPrompt, load_by_layer
from safetensors.torch import load_file
from torch import Tensor

from windowkv_service.domain.requests import Task
from windowkv_service.model.builtin.documents import SingleFact, Split
from windowkv_service.model.loader import ModelOptions, load
from windowkv_service.selection import Selector, TokenSelection, WindowSelection

NUM_TOKENS = 640
REMOVED_RATIOS = (0.5, 0.75, 0.875)  # exact in binary: kvpress rounds 640 · (1 - 0.9) down to 63
RESULTS = Path(__file__).parent / "results"


def kept_by(selector: Selector, prompt: ReadPrompt, removed: float) -> Tensor:
    """bool [layers, KV heads, tokens] at the bytes that remain."""
    observation = prompt.observation(selector.observation_size)
    budget = round((1 - removed) * prompt.layout.full_bytes(observation.num_tokens))
    got = selector.select(observation, budget_bytes=budget, task=Task.AUTO)
    shape = (prompt.model.num_layers, prompt.layout.num_kv_heads, observation.num_tokens)
    kept = torch.zeros(shape, dtype=torch.bool)
    if isinstance(got, TokenSelection):
        for (layer, head), tokens in got.tokens.items():
            kept[layer, head, tokens] = True
    else:
        _mark_windows(kept, prompt, got)
    return kept


def _mark_windows(kept: Tensor, prompt: ReadPrompt, got: WindowSelection) -> None:
    size = prompt.layout.window_size
    for group, windows in zip(prompt.layout.groups, got.windows, strict=True):
        for layer in group.layers:
            for window in windows:
                kept[layer, :, window * size : (window + 1) * size] = True


def compare(case: Case, theirs: Mapping[str, Tensor], prompt: ReadPrompt) -> dict[str, Any]:
    """One method on one model."""
    shares = {
        str(1 - removed): agreement(
            theirs[f"kept/{removed}"], kept_by(case.ours, prompt, removed), theirs["told"]
        )
        for removed in REMOVED_RATIOS
    }
    return {"agreement": shares, "score_difference": _score_difference(case, theirs["scores"], prompt)}


def agreement(theirs: Tensor, ours: Tensor, told: Tensor) -> float:
    """The share of kept tokens that both keep, of whoever keeps more, in the heads of which that can be told."""
    theirs, ours = theirs[told], ours[told]
    return float((theirs & ours).sum() / max(int(theirs.sum()), int(ours.sum())))


def _score_difference(case: Case, theirs: Tensor, prompt: ReadPrompt) -> float | None:
    """The largest, where both score and neither protects, relative to the largest score."""
    if case.compared is None:
        return None
    scorer = getattr(case.ours, "scorer", None)
    assert scorer is not None
    layers = range(theirs.shape[0])
    scores = scorer.score(prompt.observation(scorer.observation_size), list(layers))
    ours = torch.stack([scores[layer] for layer in layers])[..., case.compared]
    theirs = theirs[..., case.compared]
    return float((ours - theirs).abs().max() / theirs.abs().max())


def prompts_of(models: Mapping[str, Path]) -> dict[str, list[int]]:
    """Random ids for random models, a document for the one that was trained to read."""
    generator = torch.Generator().manual_seed(7)
    found = {}
    for name in models:
        if name == BUILTIN_NAME:
            model = load(ModelOptions("builtin", "cpu", "float32", 16, None))
            task = SingleFact(num_tokens=2 * NUM_TOKENS, num_questions=1, num_facts=20)
            text = task.draw(Random(7), Split.TRAIN).text
            found[name] = model.tokenizer.tokenize(text, add_special_tokens=True)[:NUM_TOKENS]
        else:
            found[name] = torch.randint(0, 256, (NUM_TOKENS,), generator=generator).tolist()
        assert len(found[name]) == NUM_TOKENS
    return found


def run(kvpress_python: Path, folder: Path) -> dict[str, Any]:
    """Both sides, every case on every model."""
    models = save_models(folder)
    token_ids = prompts_of(models)
    plan = {
        "models": {name: str(path) for name, path in models.items()},
        "token_ids": token_ids,
        "removed_ratios": REMOVED_RATIOS,
        "cases": [case.theirs for case in CASES],
    }
    (folder / "cases.json").write_text(json.dumps(plan))
    script = Path(__file__).with_name("press_runs.py")
    subprocess.run([kvpress_python, script, folder], check=True)
    rows: list[dict[str, Any]] = []
    left_out: dict[str, int] = {}
    for case in CASES:
        row: dict[str, Any] = {"method": case.method, "setting": case.setting, "why": case.why, "models": {}}
        for number, (name, path) in enumerate(models.items()):
            prompt = ReadPrompt(load_by_layer(path, case.window_size), token_ids[name])
            theirs = load_file(folder / f"{number}-{case.name}.safetensors")
            row["models"][name] = compare(case, theirs, prompt)
            left_out[name] = int((~theirs["told"]).sum())
        rows.append(row)
        print(case.name, json.dumps(row["models"]), flush=True)
    ours = {"torch": torch.__version__, "transformers": transformers.__version__}
    theirs_run = json.loads((folder / "versions.json").read_text())
    return {"num_tokens": NUM_TOKENS, "theirs": theirs_run, "ours": ours, "left_out": left_out, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kvpress-python", type=Path, required=True, help="of the environment that holds kvpress"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        found = run(args.kvpress_python, Path(folder))
    (args.out / "kvpress.json").write_text(json.dumps(found, indent=2) + "\n")
    (args.out / "kvpress.md").write_text(render(found))


if __name__ == "__main__":
    main()
