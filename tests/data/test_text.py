"""Texts survive the tokenizer, never turn into specials, and a changed tokenizer is refused."""

import json
import pickle
import shutil
import unicodedata

import numpy as np
import pytest

from tests.make_data import build_texts, documents, train_tokenizer
from vlbeit_jax.data.text import DESCRIPTION_FILE, MODEL_FILE, TextTokenizer, row_of
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Special

KEPT = [
    "",
    "A small dog, 3 cats & a (red) boat!",
    "Öltanker fährt über die Ostsee, déjà vu à Nîmes.",
    "東京は日本の首都です。",
    "Пароход плывёт.",
    "We like 🍕 and 🚀!",
    "no piece of their own: ᚠ Ω ∀",
    "quotes \"'` and \\ / | ~ < > { } # $ % ^ * _ = +",
]


@pytest.mark.parametrize("text", KEPT)
def test_texts_come_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "text, normal",
    [
        ("  two   blanks\tand\na line ", "two blanks and a line"),
        ("ＦＵＬＬ　ｗｉｄｔｈ", "FULL width"),
        ("ﬁne ½", "fine 1⁄2"),
        (unicodedata.normalize("NFD", "déjà über"), "déjà über"),
        ("non\N{NO-BREAK SPACE}breaking", "non breaking"),
    ],
)
def test_texts_come_back_normalised(tokenizer, text, normal):
    assert tokenizer.decode(tokenizer.encode(text)) == normal
    assert tokenizer.encode(text) == tokenizer.encode(normal)


def test_random_texts_come_back(tokenizer):
    for seed in range(200):
        rng = np.random.default_rng(seed)
        letters = [
            chr(code)
            for code in (
                *range(33, 127),
                *range(0xC0, 0x180),
                *range(0x4E00, 0x4F00),
                *range(0x1F600, 0x1F640),
            )
        ]
        text = unicodedata.normalize(
            "NFKC", " ".join("".join(rng.choice(letters, 1 + rng.integers(8))) for _ in range(6))
        )
        text = " ".join(text.split())
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "raw", ["<mask>", "<pad>", "<s>", "</s>", "<unk>", "[MASK]", "<0x41>", "a <mask> b</s><s>"]
)
def test_raw_text_never_becomes_a_special(tokenizer, raw):
    pieces = tokenizer.encode(raw)
    assert pieces and min(pieces) > max(Special)
    assert tokenizer.decode(pieces) == raw


def test_ids_of_the_specials_are_fixed(tokenizer):
    assert [tokenizer.piece(special) for special in Special] == [
        "<pad>",
        "<unk>",
        "<s>",
        "</s>",
        "<mask>",
    ]
    assert tokenizer.decode([2, *tokenizer.encode("a dog"), 4, 3, 0, 0]) == "a dog"
    assert tokenizer.vocabulary == 380 == len(tokenizer.word_starts)


def test_rows_are_cut_and_padded(tokenizer):
    pieces = tokenizer.encode("a red dog sleeps near a tree")
    assert len(pieces) >= 6
    row = tokenizer.encode_row("a red dog sleeps near a tree", 6)
    assert row.dtype == np.int32 and row.tolist() == [Special.CLS, *pieces[:4], Special.SEP]
    row = tokenizer.encode_row("a red dog sleeps near a tree", len(pieces) + 5)
    assert row.tolist() == [Special.CLS, *pieces, Special.SEP, 0, 0, 0]
    assert (
        tokenizer.encode_row("", 4).tolist()
        == row_of([], 4).tolist()
        == [Special.CLS, Special.SEP, 0, 0]
    )


def test_word_starts_open_words(tokenizer):
    pieces = tokenizer.encode("a red dog sleeps")
    assert tokenizer.word_starts[pieces].sum() == 4 and tokenizer.word_starts[pieces[0]]
    assert tokenizer.word_starts.dtype == bool
    assert [tokenizer.piece(piece)[0] == "_" for piece in pieces] == tokenizer.word_starts[
        pieces
    ].tolist()


def test_a_copy_in_another_process_is_the_same(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.fingerprint == tokenizer.fingerprint and copy.encode("a dog") == tokenizer.encode(
        "a dog"
    )


def other_model(folder, path):
    other = train_tokenizer(
        folder, "other", [build_texts(folder, "other_texts", documents(60))], 370
    )
    shutil.copy(other.folder / MODEL_FILE, path)


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda folder, copy: other_model(folder, copy / MODEL_FILE), "was changed"),
        (
            lambda folder, copy: (copy / DESCRIPTION_FILE).write_text(
                json.dumps({"fingerprint": "0" * 12})
            ),
            "was changed.*000000000000",
        ),
        (lambda folder, copy: (copy / DESCRIPTION_FILE).unlink(), "no text tokenizer"),
        (lambda folder, copy: shutil.rmtree(copy), "no text tokenizer"),
        # SentencePiece raises RuntimeError for the next two, json JSONDecodeError for the last.
        (lambda folder, copy: (copy / MODEL_FILE).unlink(), "no text tokenizer"),
        (
            lambda folder, copy: (copy / MODEL_FILE).write_bytes(
                (copy / MODEL_FILE).read_bytes()[:5000]
            ),
            "tokenizer",
        ),
        (lambda folder, copy: (copy / DESCRIPTION_FILE).write_text('{"finger'), "tokenizer"),
    ],
    ids=[
        "other model",
        "other fingerprint",
        "no description",
        "no folder",
        "no model",
        "half a model",
        "half a description",
    ],
)
def test_an_edited_tokenizer_is_refused(tokenizer, tmp_path, edit, message):
    copy = tmp_path / "copy"
    shutil.copytree(tokenizer.folder, copy)
    assert TextTokenizer(copy).fingerprint == tokenizer.fingerprint
    edit(tmp_path, copy)
    with pytest.raises(UsageError, match=message) as error:
        TextTokenizer(copy)
    assert str(copy) in str(error.value)
