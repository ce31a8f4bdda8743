"""The built-in model: tokenizer, generated documents, weights."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.decoders import DecodeStream
from transformers import AutoTokenizer, LlamaForCausalLM

from windowkv_service.model import builtin
from windowkv_service.model.builtin import demo, documents
from windowkv_service.model.builtin.documents import facts, lexicon
from windowkv_service.model.builtin.evaluate import Reader, held_out_document

MODEL = Path(builtin.__file__).parent

# Every code point but the surrogates, which UTF-8 cannot carry.
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return LlamaForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


def tokenize(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


@given(text=ANY_TEXT)
@settings(max_examples=300, deadline=None)
def test_any_text_round_trips(tokenizer, text):
    assert tokenizer.decode(tokenize(tokenizer, text)) == text


@pytest.mark.parametrize(
    "text", ["👩‍🚀 🇳🇱", "a\r\n\tb\x00\x07", " amber . , 's n't", "\u200b\ufeff", "  \n \n\n x  "]
)
def test_awkward_text_round_trips(tokenizer, text):
    assert tokenizer.decode(tokenize(tokenizer, text)) == text


@given(text=ANY_TEXT)
@settings(max_examples=100, deadline=None)
def test_streamed_detokenization_gives_the_same_text(tokenizer, text):
    stream = DecodeStream(skip_special_tokens=False)  # a text may spell <eos>
    pieces = [stream.step(tokenizer.backend_tokenizer, token_id) for token_id in tokenize(tokenizer, text)]
    assert "".join(piece for piece in pieces if piece is not None) == text


def test_every_word_of_the_lexicon_is_one_token(tokenizer):
    assert [word for word in lexicon.words() if len(tokenize(tokenizer, f" {word}")) != 1] == []


def test_generated_text_has_no_byte_tokens_but_punctuation(tokenizer):
    document = held_out_document(2000, seed=7, num_questions=4)
    assert len(tokenize(tokenizer, document.text)) == documents.count_tokens(document.text)


@given(text=ANY_TEXT, question=ANY_TEXT)
@settings(max_examples=100, deadline=None)
def test_a_question_suffix_tokenizes_apart_as_together(tokenizer, text, question):
    suffix = documents.question_suffix(question)
    assert tokenize(tokenizer, text) + tokenize(tokenizer, suffix) == tokenize(tokenizer, text + suffix)


def test_document_starts_with_bos_and_suffix_does_not(tokenizer):
    assert tokenizer("Log").input_ids[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in tokenize(tokenizer, documents.question_suffix("What?"))


def test_chat_renders_as_document_and_question_suffix(tokenizer):
    messages = [{"role": "system", "content": "Day 1."}, {"role": "user", "content": "What?"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == "<bos>Day 1." + documents.question_suffix("What?")


def test_chat_that_continues_a_cached_document_is_the_suffix_alone(tokenizer):
    messages = [{"role": "user", "content": "What?"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == documents.question_suffix("What?")


def test_chat_writes_answers_as_in_training(tokenizer):
    messages = [
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "amber"},
        {"role": "user", "content": "Where?"},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    first = documents.question_suffix("What?") + documents.answer_text("amber") + "<eos>"
    assert rendered == first + documents.question_suffix("Where?")


def test_a_seed_gives_one_document():
    task = documents.SingleFact(num_tokens=500, num_questions=5, num_facts=10)
    same = [task.draw(random.Random(3), documents.Split.TRAIN) for _ in range(2)]
    assert same[0] == same[1]
    assert same[0] != task.draw(random.Random(4), documents.Split.TRAIN)


@pytest.mark.parametrize("num_tokens", [100, 500, 4000])
def test_a_document_has_about_the_length_asked_for(num_tokens):
    document = documents.SingleFact(num_tokens, 5, 10).draw(random.Random(1), documents.Split.TRAIN)
    assert documents.count_tokens(document.text) == pytest.approx(num_tokens, rel=0.03, abs=10)


def test_each_answer_stands_in_its_document():
    document = held_out_document(1000, seed=1, num_questions=10)
    assert len(document.questions) == 10
    assert all(f" {question.answer}" in document.text for question in document.questions)


def test_too_many_facts_are_refused():
    with pytest.raises(ValueError, match="facts need more"):
        facts.draw_facts(random.Random(1), 10**6, documents.Split.TRAIN, documents.ATTRIBUTES)


@pytest.mark.parametrize("split", documents.Split)
def test_a_document_states_pairs_of_its_split_only(split):
    drawn = facts.draw_facts(random.Random(1), 300, split, documents.ATTRIBUTES)
    assert {documents.split_of(fact.name, fact.value) for fact in drawn} == {split}


def test_every_name_has_pairs_in_both_splits():
    for name in lexicon.NAMES:
        for attribute in documents.ATTRIBUTES:
            for split in documents.Split:
                value = facts.draw_value(random.Random(1), attribute, name, split)
                assert documents.split_of(name, value) is split


def test_weights_are_small_and_loadable(model):
    assert model.num_parameters() <= 6_000_000
    assert (MODEL / "model.safetensors").stat().st_size <= 16 * 2**20
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert model.config.num_hidden_layers >= 4


def test_answers_questions_about_unseen_documents(model, tokenizer):
    right = asked = 0
    for seed, num_tokens in enumerate((1000, 2000)):
        document = held_out_document(num_tokens, seed=500 + seed, num_questions=20)
        reader = Reader(model, tokenizer, document.text)
        right += sum(reader.answer(question.text) == question.answer for question in document.questions)
        asked += len(document.questions)
    assert right / asked >= 0.95


def test_answers_one_question_after_another(model, tokenizer):
    document = held_out_document(500, seed=900, num_questions=6)
    text = document.text
    for question in document.questions[:-1]:
        text += documents.question_suffix(question.text) + documents.answer_text(question.answer)
    assert Reader(model, tokenizer, text).answer(document.questions[-1].text) == document.questions[-1].answer


def test_demo_is_what_the_generator_writes():
    assert demo.load() == demo.generate()


def test_demo_is_a_long_document_with_ten_questions(tokenizer):
    document = demo.load()
    assert 3500 <= len(tokenize(tokenizer, document.text)) <= 4200
    assert len(document.questions) >= 10
