"""Builds the model's tokenizer: one token per word of the lexicon, one per byte for everything else."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from windowkv_service.model.builtin import documents

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"

# A system message is the document, a user message a question, an assistant message its answer. <bos> comes with the
# document only, so that messages which continue a cached document render to plain question suffixes.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ bos_token + message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '\\nQuestion: ' + message['content'] | trim }}"
    "{% elif message['role'] == 'assistant' %}{{ '\\nAnswer: ' + message['content'] | trim + eos_token }}"
    "{% else %}{{ raise_exception('unknown role: ' + message['role']) }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\nAnswer:' }}{% endif %}"
)


def build_tokenizer(model_max_length: int) -> PreTrainedTokenizerFast:
    """The tokenizer, made from the lexicon alone: no corpus, the same result every time.

    Any text round-trips: what is no word of the lexicon becomes its UTF-8 bytes, one token each.
    """
    backend = Tokenizer(models.BPE(vocab=_vocabulary(), merges=[], ignore_merges=True))
    backend.pre_tokenizer = _pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([PAD, BOS, EOS])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=model_max_length,
    )


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """Every newline alone, then GPT-2's split into words with their leading space.

    A lone newline makes the boundary between a document and a question stable under tokenization.
    """
    newline = pre_tokenizers.Split(Regex(r"\n"), behavior="isolated")
    return pre_tokenizers.Sequence(
        [newline, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )


def _vocabulary() -> dict[str, int]:
    """Special tokens, the 256 bytes, then the words; token → id."""
    tokens = [PAD, BOS, EOS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    split = _pre_tokenizer()
    for phrase in documents.phrases():
        tokens += [piece for piece, _ in split.pre_tokenize_str(phrase)]
    return {token: token_id for token_id, token in enumerate(dict.fromkeys(tokens))}
