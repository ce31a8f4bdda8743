"""Rows of a cached document compute what the engine's block tables do, whatever each row reads."""

import pytest
import torch
from cached_documents import NUM_TOKENS, cached_document, random_ids, tiny_model
from offline.asking import Asking
from offline.choice import Choice, for_all_heads, tokens_of
from offline.chooser import Unmoved
from offline.document import CachedDocument
from offline.rows import Rows
from transformers import AutoModelForCausalLM

import windowkv_kernels as kernels
from windowkv_service.engine.tables import BlockTables
from windowkv_service.kv.buffers import Arenas, Staging
from windowkv_service.model.attention import Observed
from windowkv_service.model.loader import LoadedModel
from windowkv_service.model.runner import Runner

QUESTION = random_ids(13, 2)


def some_windows(document: CachedDocument) -> list[tuple[int, ...]]:
    """Others for every group; sliding groups keep what they must."""
    return [
        (group.index % 3, 4, 9)
        if group.is_selectable
        else tuple(document.layout.full_windows(group, NUM_TOKENS))
        for group in document.layout.groups
    ]


def choice_of(document: CachedDocument, windows: list[tuple[int, ...]]) -> Choice:
    layout = document.layout
    tokens = [for_all_heads(tokens_of(chosen, layout, NUM_TOKENS), layout) for chosen in windows]
    return Choice(tokens, 1.0, 0)


def over_block_tables(model: LoadedModel, windows: list[tuple[int, ...]]) -> torch.Tensor:
    """The question's logits [vocab_size] as the service computes them."""
    layout, device = model.layout, model.device
    arenas = Arenas(
        layout,
        dict.fromkeys(range(1, 9), 8 * len(layout.groups)),
        dtype=model.dtype,
        device=device,
    )
    runner = Runner(model.module, layout, arenas, device)
    staging = Staging(layout, NUM_TOKENS, dtype=model.dtype, device=device)
    runner.prefill(random_ids(NUM_TOKENS, 1), 0, staging, Observed((), 0))
    block_ids, tail_ids = [], []
    for group, chosen in zip(layout.groups, windows, strict=True):
        first = 8 * group.index
        block_ids.append(list(range(first, first + len(chosen))))
        tail_ids.append([first + 7])
        rows = [staging.rows[layer] for layer in group.layers]
        places = torch.tensor(block_ids[-1])
        kernels.gather_windows(
            staging.tensor, rows, torch.tensor(chosen), NUM_TOKENS, arenas.of(group), places
        )
    tables = BlockTables(layout, windows, block_ids, tail_ids, NUM_TOKENS, device)
    positions = NUM_TOKENS + torch.arange(len(QUESTION))[None]
    return runner.logits(torch.tensor([QUESTION]), positions, tables.rows(0, len(QUESTION)))[0]


@pytest.mark.parametrize("architecture", ["llama", "mistral_sliding", "qwen3", "gemma3", "gemma3n"])
def test_rows_agree_with_block_tables(tmp_path, architecture):
    model = tiny_model(tmp_path, architecture)
    document = cached_document(model)
    windows = some_windows(document)
    everything = [tuple(model.layout.full_windows(group, NUM_TOKENS)) for group in model.layout.groups]
    rows = Rows(document, 2)
    rows.read([choice_of(document, windows), choice_of(document, everything)])
    got = rows.run(torch.tensor([QUESTION, QUESTION]), lambda layer, queries: None)
    torch.testing.assert_close(got[0], over_block_tables(model, windows), atol=2e-4, rtol=1e-3)


def test_an_answer_over_everything_is_that_of_transformers(tmp_path):
    model = tiny_model(tmp_path)
    document = cached_document(model)
    plain = AutoModelForCausalLM.from_pretrained(model.directory)
    prompt = torch.tensor([random_ids(NUM_TOKENS, 1) + QUESTION])
    said = plain.generate(prompt, max_new_tokens=6, do_sample=False)[0, prompt.shape[1] :].tolist()
    for _ in range(2):  # the first answer left nothing behind
        (answer,) = Asking(document, [Unmoved(is_full=True)], 1.0).answer(QUESTION, 6)
        assert answer.token_ids == [token for token in said if token not in model.eos_ids]


def test_a_pass_that_only_listens_leaves_nothing_behind(tmp_path):
    document = cached_document(tiny_model(tmp_path))
    logits = []
    for listens in (False, True):
        rows = Rows(document, 1)
        rows.read([choice_of(document, some_windows(document))])
        if listens:
            rows.listen(torch.tensor([random_ids(5, 3)]), lambda layer, queries: None)
        logits.append(rows.run(torch.tensor([QUESTION]), lambda layer, queries: None))
    assert torch.equal(*logits)
