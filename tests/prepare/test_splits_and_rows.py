"""Equal texts stay on one side of the split; packed rows hold every piece once."""

import unicodedata

import numpy as np
import pytest

from tests.make_data import build, build_texts, encoded, picture, records, sentence, write_tar
from vlbeit_jax.data.source import TRAIN, VALIDATION, open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.build import pack_texts
from vlbeit_jax.prepare.writer import split_of
from vlbeit_jax.types import Kind, Special


def variants(caption):
    """One caption as different pages write it."""
    wide = caption.replace(" ", "\N{IDEOGRAPHIC SPACE}").replace("a", "\N{FULLWIDTH LATIN SMALL LETTER A}")
    return [caption, caption.upper(), f"  {caption.replace(' ', '   ')} ", unicodedata.normalize("NFD", caption), wide, f"{caption}\n"]


def test_equal_captions_never_stand_in_both_splits(tmp_path):
    captions = [f"größe {sentence(i, 4)} déjà vu ﬁn {i}" for i in range(30)]
    written = [(number, text) for number, caption in enumerate(captions) for text in variants(caption)]
    members = []
    for i, (number, text) in enumerate(written):
        members += [(f"{number:02d}-{i:03d}.png", encoded(picture(i, 16, 16))), (f"{number:02d}-{i:03d}.txt", text.encode())]
    meta = build(tmp_path / "set", Kind.PAIRS, [write_tar(tmp_path / "a.tar", members)], validation_share=0.5)
    assert sum(meta["counts"].values()) == len(written) and min(meta["counts"].values()) > 30
    found = [{record["id"].decode()[2:4] for record in records(tmp_path / "set", split)} for split in (TRAIN, VALIDATION)]
    assert len(found[0] | found[1]) == 30 and not found[0] & found[1]
    build(tmp_path / "images", Kind.IMAGES, [tmp_path / "a.tar"], validation_share=0.5)
    for split in (TRAIN, VALIDATION):  # so that images alone do not give away the pairs held back
        assert {record["id"] for record in records(tmp_path / "images", split)} == {
            record["id"] for record in records(tmp_path / "set", split)
        }


def test_splits_are_by_share():
    found = [split_of(sentence(i), 0.3) == VALIDATION for i in range(4000)]
    assert np.mean(found) == pytest.approx(0.3, abs=0.035)
    assert all(split_of(sentence(i), 0) == TRAIN and split_of(sentence(i), 1) == VALIDATION for i in range(100))
    assert all(split_of(sentence(i), 0.3) == TRAIN or split_of(sentence(i), 0.5) == VALIDATION for i in range(1000))  # shares nest


@pytest.fixture(scope="module")
def few_texts(tmp_path_factory):
    lines = [". ".join(sentence(10 * i + j, 3) for j in range(1 + i * 7 % 4)) for i in range(12)]
    return build_texts(tmp_path_factory.mktemp("few"), "texts", [*lines, "\N{ZERO WIDTH SPACE}", "a"], validation_share=0.3)


@pytest.mark.parametrize("length, shards", [(3, 1), (4, 1), (17, 4), (64, 1), (5000, 1)])
def test_packed_rows_hold_every_piece_once_and_in_order(few_texts, tokenizer, tmp_path, length, shards):
    texts = few_texts
    meta = pack_texts(tmp_path / "tokens", [str(texts)], tokenizer, length, shards)
    origin = open_set(str(texts))
    assert (meta["length"], meta["text_tokenizer"], meta["packed_from"]) == (length, tokenizer.fingerprint, [origin.fingerprint])
    assert open_set(str(tmp_path / "tokens"), Kind.TOKENS).contains == [meta["fingerprint"], origin.fingerprint]
    for split in (TRAIN, VALIDATION):
        rows = [record["tokens"] for record in sorted(records(tmp_path / "tokens", split), key=lambda record: record["id"])]
        encoded_texts = [tokenizer.encode(record["text"].decode()) for record in records(texts, split)]
        assert all(row.shape == (length,) and row.dtype == np.int32 for row in rows)
        assert [piece for row in rows for piece in row if piece > max(Special)] == [piece for pieces in encoded_texts for piece in pieces]
        assert all(row[0] == Special.CLS and not (row[1:] == Special.CLS).any() and not (row == Special.MASK).any() for row in rows)
        assert all(row[-1] == Special.SEP and not (row == Special.PAD).any() for row in rows[:-1])
        last = rows[-1][rows[-1] != Special.PAD]
        assert last[-1] == Special.SEP and np.array_equal(rows[-1][: len(last)], last)
        ends = {sum(map(len, encoded_texts[: i + 1])) for i in range(len(encoded_texts))}
        closed, place = set(), 0
        for row in rows:
            for piece in row[1:]:
                place += piece > max(Special)
                closed |= {place} if piece == Special.SEP else set()
        assert ends <= closed  # a SEP stands behind every document


def test_packing_needs_texts(texts, tokenizer, tmp_path):
    with pytest.raises(UsageError, match="sample:pairs.*pairs.*texts"):
        pack_texts(tmp_path / "out", ["sample:pairs"], tokenizer, 16)
    with pytest.raises(UsageError, match="does not exist"):
        pack_texts(tmp_path / "out", [str(texts), str(tmp_path / "none")], tokenizer, 16)
    assert not list(tmp_path.iterdir())
