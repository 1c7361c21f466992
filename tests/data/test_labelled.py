"""A record becomes the arrays of a labelled row; evaluation sees all of it, or its centre."""

import dataclasses
import pickle

import cv2
import numpy as np
import pytest

from tests.make_data import encoded, picture
from vlbeit_jax.config.finetune import LabelledImagesConfig
from vlbeit_jax.data import image as images
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.labelled import (
    LabelledImage,
    LabelledText,
    labelled_image_specs,
    labelled_text_specs,
)

NAMES = ("cat", "dog", "emu")
RECORD = {"id": b"a", "image": encoded(picture(0, 40, 60)), "label": b"emu"}


def example(record=RECORD, seed=0, augment=True, size=32, classes=NAMES, **settings):
    make = LabelledImage(LabelledImagesConfig(**settings), size, classes, augment)
    return pickle.loads(pickle.dumps(make))(record, Draws("test", seed))  # As for a loader process.


def fits(example, specs):
    assert example.keys() == specs.keys()
    for name, spec in specs.items():
        assert np.shape(example[name]) == spec.shape and example[name].dtype == spec.dtype, name


@pytest.mark.parametrize("settings", [{}, {"erase": 0.0, "rand_augment": "none"}], ids=str)
def test_training_examples_have_the_declared_arrays(settings):
    found = example(**settings)
    fits(found, labelled_image_specs(LabelledImagesConfig(**settings), 32))
    assert found["label"] == 2 and found["weight"] == 1
    first, again, other = (example(seed=seed, **settings) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["image"], again["image"])
    assert not np.array_equal(first["image"], other["image"])


def test_each_setting_is_used():
    plain = {"crop_scale": 1.0, "flip": 0.0, "rand_augment": "none", "erase": 0.0}
    square = RECORD | {"image": encoded(picture(1, 32, 32))}

    def differs(**changed):
        same = [
            np.array_equal(
                example(square, seed, **plain)["image"],
                example(square, seed, **plain | changed)["image"],
            )
            for seed in range(12)
        ]
        return 12 - sum(same)

    assert differs() == 0
    assert differs(flip=1.0) == 12 and 2 <= differs(flip=0.5) <= 10
    assert differs(crop_scale=0.08) >= 10
    assert differs(rand_augment="light") >= 5 and differs(rand_augment="strong") >= 5
    assert sum(example(seed=i, erase=1.0)["erase"].any() for i in range(12)) == 12


def test_evaluation_squashes_or_crops():
    pixels = images.decode(RECORD["image"])
    squashed = example(augment=False, view="squash")["image"]
    np.testing.assert_array_equal(squashed, images.resize(pixels, 32, 32))
    cropped = example(augment=False)["image"]
    np.testing.assert_array_equal(cropped, images.resize(pixels, 32, 48)[:, 8:40])
    # Shorter side 40, of which the centre of 32 remains.
    share = example(augment=False, crop_share=0.8)["image"]
    np.testing.assert_array_equal(share, pixels[4:36, 14:46])
    assert "erase" not in example(augment=False)
    # What lies at the left border is seen only if the image is squashed.
    marked = pixels.copy()
    marked[:, :6] = 255
    record = RECORD | {"image": encoded(cv2.cvtColor(marked, cv2.COLOR_RGB2RGBA)[..., :3])}
    assert np.array_equal(example(record, augment=False)["image"], cropped)
    assert not np.array_equal(example(record, augment=False, view="squash")["image"], squashed)


def test_without_classes_there_is_no_label():
    unlabelled = {name: RECORD[name] for name in ("id", "image")}
    assert "label" not in example(unlabelled, classes=(), augment=False)
    with pytest.raises(ValueError, match="record 'a'"):
        example(unlabelled | {"image": b"no image"}, classes=(), augment=False)


@dataclasses.dataclass(frozen=True)
class Letters:
    """A tokenizer whose pieces are letters."""

    def encode_row(self, text, length):
        row = np.zeros(length, np.int32)
        pieces = [2, *(ord(letter) for letter in text)][: length - 1] + [3]
        row[: len(pieces)] = pieces
        return row


def test_texts_are_rows_of_pieces():
    make = LabelledText(Letters(), 8, NAMES)
    found = make({"id": "t", "text": b"bird", "label": "dog"}, Draws("test", 0))
    fits(found, labelled_text_specs(8))
    assert found["label"] == 1 and list(found["text"]) == [2, 98, 105, 114, 100, 3, 0, 0]
    with pytest.raises(ValueError):
        make({"id": "t", "text": "bird", "label": "yak"}, Draws("test", 0))
