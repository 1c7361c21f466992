"""Statements about two images: what training and evaluation see of them."""

import dataclasses
import pickle

import numpy as np
import pytest

from tests.make_data import encoded, picture
from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.data import image as images
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.statements import StatementExample, statement_specs
from vlbeit_jax.tasks.visual_reasoning import VisualReasoning

SIZE, LENGTH = 16, 8
SETTINGS = PairedStreamConfig(text_length=LENGTH)
PLAIN = dataclasses.replace(SETTINGS, crop_scale=1.0, rand_augment="none", flip=1.0)
PIXELS = [picture(number, SIZE, SIZE) for number in (0, 1)]
RECORD = {
    "id": b"a",
    "image": encoded(PIXELS[0]),
    "second_image": encoded(PIXELS[1]),
    "text": b"both show two birds",
    "truth": np.bool_(True),
}


def example(tokenizer, settings=SETTINGS, augment=True, labelled=True, record=RECORD, seed=0):
    make = StatementExample(settings, SIZE, tokenizer, labelled, augment)
    return pickle.loads(pickle.dumps(make))(record, Draws("test", seed))  # As for a loader process.


@pytest.mark.parametrize("augment", [True, False])
def test_examples_have_the_declared_arrays(tokenizer, augment):
    found, specs = example(tokenizer, augment=augment), statement_specs(SETTINGS, SIZE)
    assert found.keys() == specs.keys()
    for name, spec in specs.items():
        assert np.shape(found[name]) == spec.shape and found[name].dtype == spec.dtype, name
    assert found["truth"] == 1
    assert example(tokenizer, record=RECORD | {"truth": np.bool_(False)})["truth"] == 0


def test_evaluation_sees_both_images_whole_and_needs_no_truth(tokenizer):
    asked = {name: value for name, value in RECORD.items() if name != "truth"}
    found = example(tokenizer, augment=False, labelled=False, record=asked)
    assert "truth" not in found
    for name, pixels in zip(("image", "second_image"), PIXELS, strict=True):
        np.testing.assert_array_equal(found[name], images.squashed_view(pixels, SIZE))


def test_images_are_cropped_apart_and_never_change_places(tokenizer):
    same = RECORD | {"second_image": RECORD["image"]}
    cropped = dataclasses.replace(PLAIN, crop_scale=0.3, flip=0.0)
    rows = [example(tokenizer, cropped, record=same, seed=seed) for seed in range(8)]
    assert sum((row["image"] != row["second_image"]).any() for row in rows) >= 7
    # A crop of the whole area still changes the aspect, so images are told by their mean colours.
    whole = dataclasses.replace(PLAIN, flip=0.0)
    for seed in range(8):
        row = example(tokenizer, whole, seed=seed)
        means = [row[name].mean((0, 1)) for name in ORDER]
        assert distance(means, PIXELS) < distance(means, PIXELS[::-1])


def distance(means, pictures):
    pairs = zip(means, pictures, strict=True)
    return sum(np.abs(mean - pixels.mean((0, 1))).sum() for mean, pixels in pairs)


ORDER = ("image", "second_image")


@pytest.mark.parametrize(
    ("text", "flips"),
    [("both show two birds", True), ("the left image shows a bird", False)],
)
def test_neither_image_is_flipped_if_the_statement_names_a_side(tokenizer, text, flips):
    found = example(tokenizer, PLAIN, record=RECORD | {"text": text.encode()})
    kept = example(tokenizer, dataclasses.replace(PLAIN, flip=0.0))
    for name in ORDER:
        assert (found[name] != kept[name]).any() == flips, name


def test_by_default_nothing_is_flipped_nor_augmented_by_colour():
    settings = VisualReasoning().statement
    assert settings.flip == 0 and settings.rand_augment == "none"
