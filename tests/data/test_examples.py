"""A record and its draws decide an example, and nothing else does."""

import zlib

import numpy as np
import pytest

from tests.make_data import encoded, picture
from vlbeit_jax.config.streams import PairStreamConfig, TextStreamConfig
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.masked import MaskedExample
from vlbeit_jax.types import Special

STREAM = PairStreamConfig(num_masked_patches=6, mask_block=2, text_length=16, masked_text=0.5)
TEXTS = TextStreamConfig(text_length=16, masked_text=0.5)
CAPTIONS = ["a red dog", "two cats", "the old boat sleeps"]
RECORD = {
    "id": b"tar/0001",
    "image": encoded(picture(0, 30, 40)),
    "captions": [caption.encode() for caption in CAPTIONS],
}


def original(example):
    """The text before it was masked."""
    text, used = example["text"].copy(), example["text_weights"] > 0
    text[example["text_masked"][used]] = example["text_targets"][used]
    return text


@pytest.mark.parametrize("augment", [True, False])
def test_examples_follow_record_and_draws(tokenizer, augment):
    make = MaskedExample(STREAM, 16, 4, tokenizer, augment)
    first, again, other = (make(RECORD, Draws(seed)) for seed in (0, 0, 1))
    shapes = {
        "image": (16, 16, 3),
        "masked_patches": (6,),
        "text": (16,),
        "text_masked": (7,),
        "text_targets": (7,),
        "text_weights": (7,),
    }
    assert {key: value.shape for key, value in first.items()} == shapes | {"weight": (), "uid": ()}
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert (
        first["uid"] == zlib.crc32(b"tar/0001")
        and first["uid"].dtype == np.uint32
        and first["weight"] == 1
    )
    assert np.array_equal(first["image"], other["image"]) != augment
    assert not np.array_equal(first["masked_patches"], other["masked_patches"])


def test_training_draws_a_caption_and_evaluation_takes_the_first(tokenizer):
    rows = {caption: tuple(tokenizer.encode_row(caption, 16)) for caption in CAPTIONS}
    for augment, wanted in ((True, set(rows.values())), (False, {rows[CAPTIONS[0]]})):
        make = MaskedExample(TEXTS, 0, 0, tokenizer, augment)
        examples = [make(RECORD, Draws(seed)) for seed in range(40)]
        assert {tuple(original(example)) for example in examples} == wanted
        assert "image" not in examples[0]


def test_packed_rows_and_texts_as_str_are_read(tokenizer):
    make = MaskedExample(TEXTS, 0, 0, tokenizer, True)
    row = tokenizer.encode_row("a red dog", 16).astype(np.int64)
    example = make({"id": "text/1", "tokens": row, "weight": 0.0}, Draws(0))
    assert (
        np.array_equal(original(example), row)
        and example["text"].dtype == np.int32
        and example["weight"] == 0
    )
    assert set(original(make({"id": "1", "captions": [""]}, Draws(0)))) == {
        Special.CLS,
        Special.SEP,
        Special.PAD,
    }


def test_a_broken_image_names_its_record():
    with pytest.raises(ValueError, match="tar/0001"):
        MaskedExample(STREAM, 16, 4, None, True)(RECORD | {"image": b"<html>"}, Draws(0))
