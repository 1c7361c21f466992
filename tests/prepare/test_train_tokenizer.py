"""Equal texts give equal tokenizers, trained on what is not held out."""

import json

import numpy as np
import pytest

from tests.make_data import (
    build,
    build_texts,
    encoded,
    pair_members,
    picture,
    sentence,
    train_tokenizer,
    write_tar,
)
from vlbeit_jax.data.identity import split_of, text_key
from vlbeit_jax.data.source import TRAIN, VALIDATION, open_set
from vlbeit_jax.data.text import DESCRIPTION_FILE, MODEL_FILE, TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.text_tokenizer import sample_lines, train_text_tokenizer
from vlbeit_jax.types import Kind, Special


def test_training_twice_gives_the_same_pieces(tokenizer, texts, tmp_path):
    again = train_tokenizer(tmp_path, "again", [texts])
    assert again.fingerprint == tokenizer.fingerprint
    assert [again.piece(i) for i in range(380)] == [tokenizer.piece(i) for i in range(380)]
    assert {path.name for path in again.folder.iterdir()} == {MODEL_FILE, DESCRIPTION_FILE}
    assert train_tokenizer(tmp_path, "smaller", [texts], 370).fingerprint != tokenizer.fingerprint


def test_the_description_says_what_was_done(tokenizer, texts):
    described = json.loads((tokenizer.folder / DESCRIPTION_FILE).read_text())
    assert (
        described["specials"]
        == {"PAD": 0, "UNKNOWN": 1, "CLS": 2, "SEP": 3, "MASK": 4}
        == {s.name: s for s in Special}
    )
    assert (
        described["fingerprint"] == tokenizer.fingerprint
        and described["vocabulary"] == tokenizer.vocabulary == 380
    )
    assert described["trained_on"] == [open_set(str(texts)).fingerprint]


def test_held_out_texts_are_not_seen(tmp_path):
    seen, held = ([f"{sentence(i)} {letter}" for i in range(200)] for letter in "жω")
    lines = [line for line in seen if split_of(text_key(line), 0.3) == TRAIN]
    lines += [line for line in held if split_of(text_key(line), 0.3) == VALIDATION]
    place = build_texts(tmp_path, "texts", lines, validation_share=0.3)
    train_text_tokenizer(tmp_path / "tokenizer", [str(place)], 320, 10**6, coverage=1.0)
    pieces = "".join(TextTokenizer(tmp_path / "tokenizer").piece(i) for i in range(320))
    assert "ж" in pieces and "ω" not in pieces


def test_captions_will_do(tmp_path):
    build(tmp_path / "pairs", Kind.PAIRS, [write_tar(tmp_path / "a.tar", pair_members(60))])
    assert train_tokenizer(tmp_path, "tokenizer", [tmp_path / "pairs"], 300).decode([2, 3]) == ""


def test_long_captions_are_not_lost(tmp_path):
    """SentencePiece silently skips lines of more than 4192 bytes; here all lines are longer."""
    captions = [" ".join(sentence(100 * i + j) for j in range(300)).encode() for i in range(5)]
    members = [
        member
        for i, text in enumerate(captions)
        for member in ((f"{i}.png", encoded(picture(i))), (f"{i}.txt", text))
    ]
    build(
        tmp_path / "pairs", Kind.PAIRS, [write_tar(tmp_path / "a.tar", members)], validation_share=0
    )
    assert min(map(len, captions)) > 4192
    assert len(
        train_tokenizer(tmp_path, "tokenizer", [tmp_path / "pairs"], 300).encode(sentence(7))
    ) < len(sentence(7))


@pytest.mark.parametrize(
    "place, vocabulary, message",
    [
        ("texts", 50_000, "50000 pieces"),
        ("texts", 270, "270 pieces"),
        ("images", 330, "images.*texts or pairs"),
        ("none", 330, "does not exist"),
    ],
)
def test_unusable_requests_leave_nothing_behind(texts, tmp_path, place, vocabulary, message):
    build(tmp_path / "images", Kind.IMAGES, [write_tar(tmp_path / "a.tar", pair_members(5))])
    there = str(texts) if place == "texts" else str(tmp_path / place)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match=message):
        train_text_tokenizer(tmp_path / "out", [there], vocabulary, 10**6)
    assert sorted(tmp_path.iterdir()) == before


def test_an_existing_tokenizer_is_left_alone(tokenizer, texts):
    before = (tokenizer.folder / MODEL_FILE).read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        train_text_tokenizer(tokenizer.folder, [str(texts)], 390, 10**6)
    assert (tokenizer.folder / MODEL_FILE).read_bytes() == before


def test_samples_are_bounded_and_hash_ordered():
    lines = [sentence(i, 1 + i % 9) for i in range(500)]
    for limit in (500, 1000, 5000, 10**6):
        found = sample_lines(lines, limit)
        assert sum(len(line.encode()) for line in found) <= limit and set(found) <= set(lines)
        assert len(found) == len(set(found)) and found == [
            line for line in sample_lines(lines, 10**6) if line in set(found)
        ]
    assert (
        sorted(sample_lines(lines, 10**6)) == sorted(lines) and sample_lines(lines, 10**6) != lines
    )
    assert sum(len(line) for line in sample_lines(lines, 5000)) > 4900
    assert sample_lines(["ä" * 100], 50) == ["ä" * 100] and sample_lines([], 50) == []


@pytest.mark.parametrize("limit", [1000, 20_000])
def test_samples_do_not_depend_on_the_order_of_the_lines(limit):
    lines = [sentence(i, 1 + i % 30) for i in range(1000)] + ["twice"] * 2
    orders = [np.random.default_rng(seed).permutation(lines).tolist() for seed in range(8)]
    assert len({tuple(sample_lines(order, limit)) for order in orders}) == 1
