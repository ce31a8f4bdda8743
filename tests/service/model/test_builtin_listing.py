"""The layer that lists, in the model that is shipped: where it counts, where it takes back, where it keeps still."""

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from windowkv_service.model import builtin
from windowkv_service.model.builtin.documents import Split, lexicon, question_suffix, tasks

COUNTING, TAKING = 0, 1  # query heads of the last layer


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    directory = Path(builtin.__file__).parent
    return LlamaForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(Path(builtin.__file__).parent)


def listing(model, tokenizer, text):
    """[heads, num_tokens]: what the text's last token attends to in the last layer."""
    token_ids = torch.tensor([tokenizer(text).input_ids])
    with torch.inference_mode():
        return model(token_ids, output_attentions=True).attentions[-1][0, :, -1]


def drawn(kind, num_tokens=600):
    document = tasks()[kind](num_tokens, 1).draw(random.Random(3), Split.HELD_OUT)
    return document, document.text + question_suffix(document.questions[0].text)


@pytest.mark.parametrize("kind", ["cwe", "fwe"])
def test_counting_looks_at_all_words_alike(model, tokenizer, kind):
    _, asked = drawn(kind)
    words = listing(model, tokenizer, asked)[COUNTING, 1:500]
    assert words.sum() > 0.7
    assert words.max() < 1.2 * words.min()


def test_what_an_answer_said_is_taken_back_and_nothing_else(model, tokenizer):
    document, asked = drawn("cwe")
    said = document.questions[0].parts[:3]
    text = f"{asked} {'; '.join(said)};"
    taken = listing(model, tokenizer, text)[TAKING]
    places = [len(taken) - 2 * back for back in (1, 2, 3)]
    assert taken[places].sum() > 0.9


@pytest.mark.parametrize("kind", ["niah_single_2", "niah_multikey_1", "vt", "qa_1"])
def test_other_questions_leave_it_looking_at_the_beginning(model, tokenizer, kind):
    _, asked = drawn(kind)
    looked = listing(model, tokenizer, asked)
    assert looked[[COUNTING, TAKING], 0].min() > 0.99


def test_every_listed_word_has_a_direction_of_its_own(model, tokenizer):
    channel = model.model.embed_tokens.weight[:, -128:-2]
    for words in (lexicon.COMMON, lexicon.FREQUENT):
        ids = [tokenizer(f" {word}", add_special_tokens=False).input_ids for word in words]
        assert all(len(each) == 1 for each in ids)
        directions = channel[[each[0] for each in ids]]
        assert torch.equal(directions @ directions.T > 0, torch.eye(len(words), dtype=torch.bool))
