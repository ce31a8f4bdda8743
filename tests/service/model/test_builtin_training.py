"""How the built-in model is trained: what it sees, what it is asked to learn, how it starts."""

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from windowkv_service.model import builtin
from windowkv_service.model.builtin.curriculum import stages
from windowkv_service.model.builtin.documents import (
    SingleFact,
    Split,
    answer_text,
    lexicon,
    question_suffix,
    split_of,
)
from windowkv_service.model.builtin.initialisation import OFFSETS
from windowkv_service.model.builtin.packing import IGNORED, Packer
from windowkv_service.model.builtin.tokenizer import build_tokenizer
from windowkv_service.model.builtin.train import build_model


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(8192)


def test_the_stored_tokenizer_is_the_one_the_lexicon_makes(tokenizer):
    stored = AutoTokenizer.from_pretrained(Path(builtin.__file__).parent)
    assert stored.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert stored.chat_template == tokenizer.chat_template


def test_training_states_no_held_out_pair():
    rng = random.Random(1)
    for stage in stages(num_final_steps=1):
        for document in stage.draw_documents(rng):
            for question in document.questions:
                name = next(word for word in question.text.rstrip("?").split() if word in lexicon.NAMES)
                assert split_of(name, question.answer) is Split.TRAIN


def test_a_packed_sequence_reads_as_the_service_will_write_it(tokenizer):
    document = SingleFact(num_tokens=100, num_questions=1, num_facts=3).draw(random.Random(1), Split.TRAIN)
    batch = Packer(tokenizer).batch(random.Random(1), [document], terse_ratio=0.0)
    question = document.questions[0]
    written = tokenizer.decode(batch.token_ids[0])
    assert written.removesuffix("<eos>") == (
        f"<bos>{document.text}{question_suffix(question.text)}{answer_text(question.answer)}"
    )


def test_answers_are_labelled_up_to_their_end(tokenizer):
    document = SingleFact(num_tokens=100, num_questions=4, num_facts=6).draw(random.Random(1), Split.TRAIN)
    batch = Packer(tokenizer).batch(random.Random(1), [document, document], terse_ratio=0.0)
    for labels, is_answer in zip(batch.labels, batch.is_answer, strict=True):
        answers = tokenizer.decode(labels[is_answer]).split("<eos>")
        assert answers[-1] == ""
        assert sorted(answers[:-1]) == sorted(answer_text(each.answer) for each in document.questions)


def test_every_other_label_is_the_next_token(tokenizer):
    document = SingleFact(num_tokens=100, num_questions=4, num_facts=6).draw(random.Random(1), Split.TRAIN)
    batch = Packer(tokenizer).batch(random.Random(1), [document], terse_ratio=0.0)
    labels, following = batch.labels[0, :-1], batch.token_ids[0, 1:]
    is_end = labels == tokenizer.eos_token_id
    checked = (labels != IGNORED) & ~is_end
    assert torch.equal(labels[checked], following[checked])


def test_a_fresh_model_looks_back(tokenizer):
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = build_model(tokenizer, hidden=128, layers=4, heads=4).eval()
    model.set_attn_implementation("eager")
    token_ids = torch.tensor([tokenizer(" Marlow carries a copper lantern near the old mill.").input_ids])
    with torch.inference_mode():
        attention = model(token_ids, output_attentions=True).attentions[0][0, :, -1]  # [heads, num_tokens]
    assert [attention.shape[1] - 1 - head.argmax().item() for head in attention] == list(OFFSETS)
