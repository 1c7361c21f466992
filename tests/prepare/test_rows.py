"""Packed rows hold every piece once, and the keys of the documents that they are made of."""

import numpy as np
import pytest

from tests.make_data import build_texts, records, sentence
from vlbeit_jax.data.identity import TEXTS, text_key
from vlbeit_jax.data.source import TRAIN, VALIDATION, open_set
from vlbeit_jax.data.text import packed_rows
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare import encode_texts, pack
from vlbeit_jax.prepare.pack import pack_texts
from vlbeit_jax.types import Kind, Special


@pytest.fixture(scope="module")
def few_texts(tmp_path_factory):
    return few(tmp_path_factory.mktemp("few"), "texts")


def few(folder, name, first=0):
    lines = [
        ". ".join(sentence(10 * i + j, 3) for j in range(1 + i * 7 % 4)) for i in range(first, 12)
    ]
    lines += ["\N{ZERO WIDTH SPACE}", "a"]
    return build_texts(folder, name, lines, validation_share=0.3)


@pytest.mark.parametrize("length, shards", [(3, 1), (4, 1), (17, 4), (64, 1), (5000, 1)])
def test_packed_rows_hold_every_piece_once_and_in_order(
    few_texts, tokenizer, tmp_path, length, shards
):
    texts = few_texts
    meta = pack_texts(tmp_path / "tokens", [str(texts)], tokenizer, length, shards)
    origin = open_set(str(texts))
    assert (meta["length"], meta["text_tokenizer"], meta["packed_from"]) == (
        length,
        tokenizer.fingerprint,
        [origin.fingerprint],
    )
    assert open_set(str(tmp_path / "tokens"), Kind.TOKENS).contains == [
        meta["fingerprint"],
        origin.fingerprint,
    ]
    for split in (TRAIN, VALIDATION):
        rows = [
            record["tokens"]
            for record in sorted(
                records(tmp_path / "tokens", split), key=lambda record: record["id"]
            )
        ]
        encoded_texts = [
            tokenizer.encode(record["text"].decode()) for record in records(texts, split)
        ]
        assert all(row.shape == (length,) and row.dtype == np.int32 for row in rows)
        assert [piece for row in rows for piece in row if piece > max(Special)] == [
            piece for pieces in encoded_texts for piece in pieces
        ]
        assert all(
            row[0] == Special.CLS
            and not (row[1:] == Special.CLS).any()
            and not (row == Special.MASK).any()
            for row in rows
        )
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


def test_packed_rows_come_with_the_keys_of_their_documents(few_texts, texts, tokenizer, tmp_path):
    fewer = few(tmp_path, "fewer", first=1)
    places = [few_texts, texts, fewer]
    pack_texts(tmp_path / "tokens", [str(place) for place in places], tokenizer, 16)
    found = open_set(str(tmp_path / "tokens"))
    for split in (TRAIN, VALIDATION):
        documents = [
            record["text"].decode() for place in places for record in records(place, split)
        ]
        keys, numbers = found.keys(TEXTS, split)
        assert set(keys.tolist()) == set(map(text_key, documents)) and (np.diff(keys) > 0).all()
        assert [text_key(documents[int(number)]) for number in numbers] == keys.tolist()
        # The first of equal ones.
        assert max(numbers) < len(documents) - open_set(str(fewer)).count(split)


def test_texts_are_not_packed_twice(few_texts, tokenizer, tmp_path):
    with pytest.raises(UsageError, match="texts' is named 2 times; name it once"):
        pack_texts(tmp_path / "tokens", [str(few_texts)] * 2, tokenizer, 16)


def test_texts_that_do_not_go_together_are_not_packed(tokenizer, tmp_path):
    places = [
        build_texts(tmp_path, name, map(sentence, range(20)), validation_share=share)
        for name, share in (("a", 0.5), ("b", 0.1))
    ]
    with pytest.raises(
        UsageError, match="/a holds out .* texts that are in the training part of .*/b"
    ):
        pack_texts(tmp_path / "tokens", [str(place) for place in places], tokenizer, 16)
    assert not (tmp_path / "tokens").exists()


def test_packing_needs_texts(texts, tokenizer, tmp_path):
    with pytest.raises(UsageError, match="sample:pairs.*pairs.*texts"):
        pack_texts(tmp_path / "out", ["sample:pairs"], tokenizer, 16)
    with pytest.raises(UsageError, match="does not exist"):
        pack_texts(tmp_path / "out", [str(texts), str(tmp_path / "none")], tokenizer, 16)
    assert not list(tmp_path.iterdir())


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_small_parts_and_a_second_start_give_the_same_bytes(
    few_texts, tokenizer, tmp_path, monkeypatch
):
    places = [str(few_texts), str(few(tmp_path, "fewer", first=3))]
    pack_texts(tmp_path / "whole", places, tokenizer, 17, 2)
    monkeypatch.setattr(encode_texts, "DOCUMENTS", 3)
    written = []

    def failing(*arguments, **named):
        written.append(len(list((tmp_path / "rows.packing").iterdir())))
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(pack, "write_set", failing)
        with pytest.raises(KeyboardInterrupt):
            pack_texts(tmp_path / "rows", places, tokenizer, 17, 2)
    assert written[0] > 4 and not (tmp_path / "rows").exists()
    parts = sorted((tmp_path / "rows.packing").iterdir())
    parts[0].unlink()
    (tmp_path / "rows.packing" / "0123.npz").write_bytes(b"of another plan")
    encoded = []
    own = encode_texts._Encode.__call__
    monkeypatch.setattr(
        encode_texts._Encode,
        "__call__",
        lambda call, given, report: encoded.append(given) or own(call, given, report),
    )
    pack_texts(tmp_path / "rows", places, tokenizer, 17, 2)
    assert len(encoded) == 1 and contents(tmp_path / "rows") == contents(tmp_path / "whole")
    assert not (tmp_path / "rows.packing").exists()
    with pytest.raises(UsageError, match="rows exists already"):
        pack_texts(tmp_path / "rows", places, tokenizer, 17, 2)


def test_a_document_of_many_rows_and_one_without_pieces(tokenizer):
    documents = [[9] * 31, [], [8] * 5, [7] * 10]
    rows = list(packed_rows(documents, 7))
    inner = [row[1:-1].tolist() for row in rows[:-1]]
    assert all(len(each) == 5 for each in inner)
    joined = [piece for row in rows for piece in row[1:] if piece > max(Special)]
    assert joined == sum(documents, [])
