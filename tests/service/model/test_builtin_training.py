"""How the built-in model is trained: what it sees, what it is asked to learn, how it starts."""

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from windowkv_service.model import builtin
from windowkv_service.model.builtin.curriculum import SINGLE_FACT, stages
from windowkv_service.model.builtin.documents import (
    SingleFact,
    Split,
    answer_text,
    lexicon,
    question_suffix,
    split_of,
    tasks,
)
from windowkv_service.model.builtin.initialisation import KEY_OFFSETS
from windowkv_service.model.builtin.packing import IGNORED, Packer
from windowkv_service.model.builtin.tokenizer import build_tokenizer
from windowkv_service.model.builtin.train import build_model


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(16_384)


def test_the_stored_tokenizer_is_the_one_the_lexicon_makes(tokenizer):
    stored = AutoTokenizer.from_pretrained(Path(builtin.__file__).parent)
    assert stored.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert stored.chat_template == tokenizer.chat_template


def test_training_states_no_held_out_pair():
    rng = random.Random(1)
    weights = dict.fromkeys((SINGLE_FACT, *tasks()), 1.0)
    checked = 0
    for stage in stages(num_final_steps=1):
        for kind, document in stage.draw_documents(rng, weights):
            for question in document.questions if kind in (SINGLE_FACT, "qa_1") else ():
                name = next(word for word in question.text.rstrip("?").split() if word in lexicon.NAMES)
                assert split_of(name, question.answer) is Split.TRAIN
                checked += 1
    assert checked > 50


def test_training_meets_every_task():
    rng, weights = random.Random(1), dict.fromkeys((SINGLE_FACT, *tasks()), 1.0)
    last = stages(num_final_steps=1)[-1]
    met = {kind for _ in range(100) for kind, _ in last.draw_documents(rng, weights)}
    assert met == {SINGLE_FACT, *tasks()}


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
    for labels, numbers in zip(batch.labels, batch.answers, strict=True):
        answers = tokenizer.decode(labels[numbers > 0]).split("<eos>")
        assert numbers.max() == len(document.questions)
        assert answers[-1] == ""
        assert sorted(answers[:-1]) == sorted(answer_text(each.answer) for each in document.questions)


def test_every_other_label_is_the_next_token(tokenizer):
    document = SingleFact(num_tokens=100, num_questions=4, num_facts=6).draw(random.Random(1), Split.TRAIN)
    batch = Packer(tokenizer).batch(random.Random(1), [document], terse_ratio=0.0)
    labels, following = batch.labels[0, :-1], batch.token_ids[0, 1:]
    is_end = labels == tokenizer.eos_token_id
    checked = (labels != IGNORED) & ~is_end
    assert torch.equal(labels[checked], following[checked])


def attention_of(model, tokenizer, layer, text):
    """[heads, num_tokens]: what the last token of the text attends to."""
    model.set_attn_implementation("eager")
    token_ids = torch.tensor([tokenizer(text).input_ids])
    with torch.inference_mode():
        return model(token_ids, output_attentions=True).attentions[layer][0, :, -1]


@pytest.fixture(scope="module")
def fresh(tokenizer):
    torch.set_num_threads(1)
    torch.manual_seed(1)
    return build_model(tokenizer, hidden=256, layers=4, heads=8).eval()


def test_a_fresh_model_looks_back(fresh, tokenizer):
    attention = attention_of(fresh, tokenizer, 0, " Marlow carries a copper lantern near the old mill.")
    looking = attention[: len(KEY_OFFSETS)]
    assert [attention.shape[1] - 1 - head.argmax().item() for head in looking] == list(KEY_OFFSETS)


def test_a_fresh_model_finds_what_follows_a_name(fresh, tokenizer):
    text = " They call Denby cobalt. They call Marlow amber. They call Selwick mica.\n Marlow"
    attention = attention_of(fresh, tokenizer, 1, text)
    place = tokenizer(text).tokens().index("Ġamber")
    assert attention[:, place].max() > 0.5


def test_a_fresh_model_remembers_the_question_through_an_answer(fresh, tokenizer):
    text = (
        " They call Marlow amber." + question_suffix("What are all the code words of Marlow?") + " amber mica"
    )
    attention = attention_of(fresh, tokenizer, 1, text)
    place = len(tokenizer(text).input_ids) - 3  # the colon before two words
    assert attention[4, place] > 0.5
