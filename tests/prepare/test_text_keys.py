"""The key of a text decides its side of the split; equal texts have one key."""

import sys
import unicodedata

import numpy as np
import pytest
import sentencepiece

from tests.make_data import sentence
from tests.prepare.test_splits import BLANK
from vlbeit_jax.data.identity import split_of, text_key
from vlbeit_jax.data.source import TRAIN, VALIDATION


def test_splits_are_by_share():
    found = [split_of(text_key(sentence(i)), 0.3) == VALIDATION for i in range(4000)]
    assert np.mean(found) == pytest.approx(0.3, abs=0.035)
    several = [text_key(sentence(i)) for i in range(1000)]
    assert all(
        split_of(key, 0) == TRAIN and split_of(key, 1) == VALIDATION
        for key in [*several, 0, 2**64 - 1]
    )
    assert all(
        split_of(key, 0.3) == TRAIN or split_of(key, 0.5) == VALIDATION for key in several
    )  # shares nest


def test_texts_that_the_tokenizer_sees_as_one_are_one():
    """For every character of Unicode 14: a text and what nmt_nfkc makes of it have one key."""
    normal = sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc")
    every = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    every = [character for character in every if unicodedata.category(character) != "Cn"]
    blocks = [
        "".join(f"a{character}b" for character in every[start : start + 50])
        for start in range(0, len(every), 50)
    ]
    different = [block for block in blocks if text_key(block) != text_key(normal.normalize(block))]
    assert len(every) > 250_000 and not different
    assert text_key("a red dog") != text_key("a red dogs")
    assert text_key("lone \ud800") != text_key("lone")  # Nothing that a file may hold stops it.


def test_the_key_of_a_text_is_this_one_for_ever():
    assert (
        f"{text_key(BLANK + ' A  Straße, ﬁn')!s}"
        == str(KEY_OF_TEXT)
        == str(text_key("a strasse, fin"))
    )


KEY_OF_TEXT = 212172911351326156
