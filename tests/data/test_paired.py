"""Images with questions or captions: what training and evaluation see, and when nothing flips."""

import dataclasses
import pickle

import cv2
import numpy as np
import pytest

from tests.make_data import encoded, picture
from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.data import image as images
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.paired import (
    CaptionExample,
    QuestionExample,
    caption_specs,
    names_a_side,
    picture_number,
    question_specs,
)
from vlbeit_jax.metrics.vqa import Rule

SIZE, LENGTH = 16, 8
SETTINGS = PairedStreamConfig(text_length=LENGTH)
PLAIN = dataclasses.replace(SETTINGS, crop_scale=1.0, rand_augment="none", flip=1.0)
NUMBERS = {"yes": 0, "no": 1, "2": 2}
PIXELS = picture(0, SIZE, SIZE)
RECORD = {
    "id": b"a",
    "sha256": b"00ff",
    "image": encoded(PIXELS),
    "text": b"are there two?",
    "answers": [b"Yes"] * 2 + [b"two"] * 4 + [b"three"],
    "captions": [b"one caption", b"another one", b"and a third"],
}


def question(tokenizer, settings=SETTINGS, augment=True, record=RECORD, seed=0, **changed):
    given = {"numbers": NUMBERS, "rule": Rule.OFFICIAL} | changed
    make = QuestionExample(settings, SIZE, tokenizer, augment=augment, **given)
    return pickle.loads(pickle.dumps(make))(record, Draws("test", seed))  # As for a loader process.


def caption(tokenizer, settings=SETTINGS, augment=True, record=RECORD, seed=0):
    return CaptionExample(settings, SIZE, tokenizer, augment)(record, Draws("test", seed))


def fits(example, specs):
    assert example.keys() == specs.keys()
    for name, spec in specs.items():
        assert np.shape(example[name]) == spec.shape and example[name].dtype == spec.dtype, name


@pytest.mark.parametrize("augment", [True, False])
def test_examples_have_the_declared_arrays(tokenizer, augment):
    fits(question(tokenizer, augment=augment), question_specs(SETTINGS, SIZE))
    fits(caption(tokenizer, augment=augment), caption_specs(SETTINGS, SIZE))


def test_answers_of_the_list_have_their_scores(tokenizer):
    found = question(tokenizer)
    scores = dict(zip(found["answers"].tolist(), found["scores"].tolist(), strict=True))
    assert found["scores"].tolist()[2:] == [0] * 8
    assert found["answers"][:2].tolist() == [0, 2] and found["scores"][:2] == pytest.approx(
        [0.6, 1]
    )
    assert set(scores) == {0, 2}
    exact = question(tokenizer, rule=Rule.EXACT)
    assert exact["scores"][:3].tolist() == [1, 1, 0]


def test_a_question_for_prediction_needs_no_answers(tokenizer):
    record = {name: value for name, value in RECORD.items() if name != "answers"}
    found = question(tokenizer, record=record, numbers={}, augment=False)
    assert found.keys() == {"weight", "uid", "image", "text"}


def test_evaluation_sees_the_whole_image_and_the_first_caption(tokenizer):
    wide = RECORD | {"image": encoded(picture(1, SIZE, 3 * SIZE))}
    whole = images.squashed_view(picture(1, SIZE, 3 * SIZE), SIZE)
    for make in (question, caption):
        np.testing.assert_array_equal(make(tokenizer, augment=False, record=wide)["image"], whole)
    first = tokenizer.encode_row("one caption", LENGTH)
    np.testing.assert_array_equal(caption(tokenizer, augment=False)["text"], first)


def test_training_draws_a_caption_and_a_view(tokenizer):
    rows = {
        name: tokenizer.encode_row(name, LENGTH).tobytes()
        for name in ("one caption", "another one", "and a third")
    }
    found = [caption(tokenizer, seed=seed) for seed in range(40)]
    assert {each["text"].tobytes() for each in found} == set(rows.values())
    assert len({each["image"].tobytes() for each in found}) > 30
    again = caption(tokenizer, seed=7)
    np.testing.assert_array_equal(again["image"], found[7]["image"])


@pytest.mark.parametrize(
    ("text", "flipped"),
    [
        ("a bright lefse", True),
        ("what is on the left?", False),
        ("The RIGHT-hand side", False),
        ("leftmost", False),
        ("turn anticlockwise", False),
        ("a clock", True),
    ],
)
def test_nothing_is_mirrored_that_the_text_would_contradict(tokenizer, text, flipped):
    assert names_a_side(text) is not flipped
    mirrored = cv2.flip(PIXELS, 1)
    assert not np.array_equal(mirrored, PIXELS)
    expected = mirrored if flipped else PIXELS
    raw = text.encode()
    for found in (
        question(tokenizer, PLAIN, record=RECORD | {"text": raw, "answers": [b"no"]}),
        question(tokenizer, PLAIN, record=RECORD | {"text": b"where?", "answers": [raw]}),
        caption(tokenizer, PLAIN, record=RECORD | {"captions": [raw]}),
    ):
        np.testing.assert_array_equal(found["image"], expected)


def test_a_text_changes_no_draw_of_the_image(tokenizer):
    """The crop and RandAugment are the same whether the text forbids a flip or not."""
    still = dataclasses.replace(SETTINGS, flip=0.0)
    for seed in range(5):
        one = caption(tokenizer, still, record=RECORD | {"captions": [b"left"]}, seed=seed)
        two = caption(tokenizer, still, record=RECORD | {"captions": [b"up"]}, seed=seed)
        np.testing.assert_array_equal(one["image"], two["image"])


def test_pictures_are_identified_by_their_file():
    other = RECORD | {"id": b"b"}
    assert picture_number(RECORD) == picture_number(other)
    assert picture_number(RECORD) != picture_number(RECORD | {"sha256": b"00fe"})
    assert picture_number({"id": "a"}) != picture_number({"id": "b"})


def test_a_broken_image_is_named(tokenizer):
    with pytest.raises(ValueError, match="record 'a': .* not a readable image"):
        question(tokenizer, record=RECORD | {"image": b"none"})
