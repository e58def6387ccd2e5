"""Imported BART, mBART and M2M100: same ids, states, logits and outputs as in transformers."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
import torch
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BartTokenizer,
    GenerationConfig,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    NllbTokenizer,
)

from data.batch import BOS, EOS, PAD, pad_rows
from decode.options import SearchOptions
from decode.translate import Translator
from interop.registry import read_folder
from model import Transformer
from model.sharding import make_mesh
from tests.experiments import bart_folders
from tests.experiments.marian_folders import lines
from tests.oracle.test_marian_tokenizer import mixed_lines

pytestmark = pytest.mark.filterwarnings("ignore")  # from transformers

SMALL = dict(
    d_model=16,
    encoder_layers=2,
    decoder_layers=2,
    encoder_ffn_dim=24,
    decoder_ffn_dim=24,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    max_position_embeddings=90,
)
MARKS = ["<s>", "<pad>", "</s>", "<unk>"]
CODES = ["eng_Latn", "deu_Latn"]
KINDS = {
    "bart": (BartConfig, BartForConditionalGeneration, dict(activation_function="gelu"), []),
    "mbart": (
        MBartConfig,
        MBartForConditionalGeneration,
        dict(scale_embedding=True),
        ["en_XX", "de_DE"],
    ),
    "m2m_100": (
        M2M100Config,
        M2M100ForConditionalGeneration,
        dict(scale_embedding=True, activation_function="relu"),
        CODES,
    ),
}


def save_tokenizer(kind, folder):
    """Saves a small tokenizer of this kind's tokenizer class."""
    english, german = lines(100)
    if kind == "mbart":
        trainer = tokenizers.trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>")
        library = tokenizers.Tokenizer(tokenizers.models.Unigram())
        library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        library.train_from_iterator(english + german, trainer)
        pieces = [(word, -float(n)) for n, word in enumerate(sorted(library.get_vocab()))]
        pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *pieces]
        MBart50Tokenizer(vocab=pieces, src_lang="en_XX", tgt_lang="de_DE").save_pretrained(folder)
        return
    byte_level = kind == "bart"
    library = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    split = tokenizers.pre_tokenizers
    library.pre_tokenizer = split.ByteLevel(add_prefix_space=False) if byte_level else (
        split.Metaspace())  # fmt: skip
    alphabet = split.ByteLevel.alphabet() if byte_level else []
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=380 if byte_level else 150, special_tokens=MARKS, initial_alphabet=alphabet
    )
    library.train_from_iterator(english + german, trainer)
    model = json.loads(library.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    if byte_level:
        BartTokenizer(vocab=model["vocab"], merges=merges).save_pretrained(folder)
    else:
        NllbTokenizer(
            vocab=model["vocab"],
            merges=merges,
            additional_special_tokens=CODES,
            src_lang=CODES[0],
            tgt_lang=CODES[1],
        ).save_pretrained(folder)


@pytest.fixture(scope="module", params=KINDS)
def converted(request, tmp_path_factory):
    """The Hugging Face tokenizer and model, the imported model, and the forced BOS id."""
    kind = request.param
    configs, models, changes, codes = KINDS[kind]
    folder = tmp_path_factory.mktemp(kind)
    save_tokenizer(kind, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    config = configs(**SMALL | changes, vocab_size=len(tokenizer) + 3)
    model = models(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1.0 if "encoder_attn" in name else 0.5  # make outputs depend on their sources
            noise = torch.randn_like(parameter) * (scale if parameter.ndim > 1 else 0.2)
            parameter.add_(noise)
        model.model.shared.weight[2] *= 2.5  # some outputs end early
        if kind != "m2m_100":
            model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias) * 0.3)
    forced = tokenizer.convert_tokens_to_ids(codes[1]) if codes else 0
    model.generation_config = GenerationConfig(
        num_beams=4,
        max_length=20,
        early_stopping=False,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_bos_token_id=None if codes else forced,
        forced_eos_token_id=2,
        bad_words_ids=[[1]],
    )
    model.save_pretrained(folder)
    return tokenizer, model, read_folder(folder), forced


TEXTS = [
    *(line for pair in zip(*lines(100), strict=True) for line in pair),
    "  two  spaces ",
    "naïve Größe 東京 🙂 e\u0301",
    "<s> spelled </s> out <unk> <mask>",
    "tab\tand \u00a0 no-break",
    "x" * 40,
]


def test_ids_are_equal(converted):
    """For 10,000 lines of all kinds; blank ones have no ids in Heed, not even a language code.

    A literal "<pad>" is a padding token there and an unknown word in Heed.
    """
    tokenizer, _, imported, _ = converted
    source, target = imported.vocabulary
    order = np.array(source.order)
    texts = [text.replace("<pad>", "-") for text in (*TEXTS, *mixed_lines())]
    texts = [text for text in texts if text.strip()]
    for side, encoded in (source, tokenizer(texts)), (target, tokenizer(text_target=texts)):
        for text, ids, expected in zip(
            texts, side.encode(texts), encoded["input_ids"], strict=True
        ):
            assert order[[*ids, EOS]].tolist() == expected, text
    ids = target.encode(texts)
    decoded = tokenizer.batch_decode([order[row] for row in ids], skip_special_tokens=True)
    assert target.decode(ids) == [text.replace("\n", " ") for text in decoded]


def test_states_and_logits_are_equal(converted):
    tokenizer, reference, imported, _ = converted
    order = np.array(imported.vocabulary.source.order)
    ids = imported.vocabulary.source.encode(TEXTS[:8])
    src = pad_rows([[*row, EOS] for row in ids], 8, 80)
    tgt = pad_rows([[BOS, *row] for row in imported.vocabulary.target.encode(TEXTS[8:16])], 8, 80)
    model = Transformer(imported.experiment.model)
    # Halve all weights, which is exact: weights for varied outputs would amplify rounding errors.
    variables = {"params": jax.tree.map(lambda p: p / 2, imported.params)}
    reference = copy.deepcopy(reference)
    with torch.no_grad():
        bias = [x for name, x in reference.named_buffers() if name == "final_logits_bias"]
        for tensor in (*reference.parameters(), *bias):
            tensor.mul_(0.5)
    memory = model.apply(variables, jnp.asarray(src), method="encode")
    logits = model.apply(variables, jnp.asarray(src), jnp.asarray(tgt))
    with torch.no_grad():
        output = reference(
            input_ids=torch.from_numpy(order[src]),
            attention_mask=torch.from_numpy(src != PAD).long(),
            decoder_input_ids=torch.from_numpy(order[tgt]),
        )
    src_mask, tgt_mask = src != PAD, tgt != PAD
    states = output.encoder_last_hidden_state.numpy()
    np.testing.assert_allclose(np.asarray(memory)[src_mask], states[src_mask], atol=1e-4, rtol=0)
    expected = output.logits.numpy()[tgt_mask][:, order]
    actual = np.asarray(logits)[tgt_mask]
    assert (actual[:, BOS] < -40).all()
    np.testing.assert_allclose(np.delete(actual, BOS, 1), np.delete(expected, BOS, 1), atol=1e-4)


@pytest.mark.parametrize("beams", [6, 1])
def test_outputs_are_equal(converted, beams):
    """With the imported search settings."""
    tokenizer, reference, imported, forced = converted
    experiment, vocabulary = imported.experiment, imported.vocabulary
    options = SearchOptions(**vars(experiment.search) | dict(beam_size=beams))
    translator = Translator(
        Transformer(experiment.model),
        jax.tree.map(jnp.asarray, imported.params),
        vocabulary,
        make_mesh(devices=jax.devices()[:1]),
        options,
        tokens_per_batch=1 << 13,  # one shape
    )
    actual = [best.text for best, *_ in translator.hypotheses(TEXTS)]
    with torch.no_grad():
        output = reference.generate(
            **tokenizer(TEXTS, return_tensors="pt", padding=True),
            num_beams=beams,
            forced_bos_token_id=forced,
        )
    expected = tokenizer.batch_decode(output, skip_special_tokens=True)
    assert len(set(expected)) > 10  # outputs depend on their sources
    for text, reference_text in zip(actual, expected, strict=True):
        assert text == reference_text.replace("\n", " ")


def test_added_tokens_are_decoded_unless_special(tmp_path):
    size = bart_folders.save_folder(tmp_path, "m2m_100").get_vocab_size()
    config = json.loads((tmp_path / "tokenizer.json").read_text())
    words = {"<new>": False, "<gone>": True}
    for id, (word, special) in enumerate(words.items(), size):
        token = config["added_tokens"][-1] | {"content": word, "special": special, "id": id}
        config["added_tokens"].append(token)
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    side = read_folder(tmp_path).vocabulary.target
    reference = AutoTokenizer.from_pretrained(tmp_path)
    text = "der <new> Lehrer <gone>das<new> Buch"
    (ids,) = side.encode([text])
    names = side.pieces(ids)
    assert names.count("<new>") == 2 and names.count("<gone>") == 1
    (expected,) = reference.batch_decode(
        [reference.convert_tokens_to_ids(names)], skip_special_tokens=True
    )
    assert side.decode([ids]) == [expected]
    assert expected.count("<new>") == 2 and "<gone>" not in expected
