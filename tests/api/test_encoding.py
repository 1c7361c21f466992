"""``Model.encode``: an independent statement, any number of rows, kinds of pictures, mistakes."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

import vlbeit_jax
from tests.convert.conftest import small_run
from tests.models.published_weights import vlmo_weights
from tests.models.test_parity import TOLERANCE, distance
from tests.models.tiny_models import reference_net
from tests.references import vlbeit as reference
from vlbeit_jax.api import states
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Special

TEXTS = ["a red disc", "a blue square number 4", "bar"]


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(3)]


def expected_states(model, pictures=None, rows=None):
    """Of images, texts or pairs, in float64."""
    weights, given = vlmo_weights(model._params, model.config), {}
    if pictures is not None:
        given["image"] = np.asarray(pictures, np.float64) / 127.5 - 1
    if rows is not None:
        given |= {"ids": rows, "valid": rows != Special.PAD}
    return reference.states(weights, reference_net(model.config), **given)


def rows_of(model, texts):
    return np.stack([model._text.encode_row(text, model.config.text_positions) for text in texts])


def test_states_are_those_of_an_independent_statement(random_model, pictures):
    found = random_model.encode(images=pictures, texts=TEXTS)
    image = expected_states(random_model, pictures)
    assert distance(found.patches, image[:, 1:]) < TOLERANCE
    assert distance(found.image_cls, image[:, 0]) < TOLERANCE
    assert distance(found.image, image[:, 1:].mean(axis=1)) < TOLERANCE
    rows = rows_of(random_model, TEXTS)
    text = expected_states(random_model, rows=rows)
    for number, row in enumerate(rows):
        length = int((row != Special.PAD).sum())
        own = text[number, :length]
        assert distance(found.words[number, :length], own) < TOLERANCE
        assert distance(found.text[number], own[1:].mean(axis=0)) < TOLERANCE
        assert distance(found.text_cls[number], own[0]) < TOLERANCE
        assert found.is_word[number].nonzero()[0].tolist() == list(range(1, length - 1))
        assert len(found.pieces[number]) == length
    assert "".join(found.pieces[0][1:-1]) == "_a_red_disc"


def test_pairs_see_each_other(random_model, pictures):
    found = random_model.encode_pairs(pictures, TEXTS)
    expected = expected_states(random_model, pictures, rows_of(random_model, TEXTS))
    patches = random_model.config.patches
    assert distance(found.patches, expected[:, 1 : patches + 1]) < TOLERANCE
    for number in range(3):
        words = found.is_word[number]
        assert distance(found.words[number, words], expected[number, patches + 1 :][words]) < (
            TOLERANCE
        )
    alone = random_model.encode(images=pictures)
    assert distance(found.patches, alone.patches) > 0.01


def test_states_after_a_block_are_those_before_the_next(random_model, pictures):
    found = random_model.encode(images=pictures, texts=TEXTS, blocks=[1, 0])
    assert sorted(found.blocks) == [0, 1]
    weights = vlmo_weights(random_model._params, random_model.config)
    # The states after the last block become the final ones by the norm alone.
    last = found.blocks[1].patches.astype(np.float64)
    normed = reference.layer_norm(weights, "norm", last, reference_net(random_model.config))
    assert distance(found.patches, normed) < TOLERANCE
    assert found.blocks[0].words.shape == found.words.shape
    assert found.blocks[0].pieces == found.pieces


def test_any_number_of_rows_gives_the_same_states_by_three_programs(random_model, pictures):
    one = random_model.encode(images=pictures).image
    before = states._states._cache_size()
    for count in (1, 2, 5, 9, 33, 70):
        found = random_model.encode(images=[pictures[index % 3] for index in range(count)]).image
        np.testing.assert_allclose(found, one[np.arange(count) % 3], rtol=1e-4, atol=1e-5)
    assert states._states._cache_size() - before <= 3


def test_paths_pil_images_and_arrays_are_one_picture(random_model, pictures, tmp_path):
    array = pictures[0]
    cv2.imwrite(str(tmp_path / "a.png"), array[..., ::-1])
    turned = Image.fromarray(np.rot90(array))
    exif = turned.getexif()
    exif[0x0112] = 6  # To be turned by 90 degrees to the right.
    turned.save(tmp_path / "turned.png", exif=exif)
    given = [
        array,
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
        Image.fromarray(array),
        tmp_path / "turned.png",
        Image.open(tmp_path / "turned.png"),
    ]
    found = random_model.encode(images=given).image
    assert len({row.tobytes() for row in found}) == 1
    single = random_model.encode(images=array).image
    np.testing.assert_allclose(single[0], found[0], rtol=1e-4, atol=1e-5)


def test_a_wide_picture_is_squashed_or_cropped(random_model):
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, 48:] = 255
    squashed, cropped = (
        random_model.encode(images=wide, view=view).image for view in ("squash", "crop")
    )
    black = random_model.encode(images=np.zeros((32, 32, 3), np.uint8)).image
    np.testing.assert_allclose(cropped, black, rtol=1e-5, atol=1e-6)
    assert np.abs(squashed - black).max() > 0.01


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "encode needs images=..., texts=..., or both"),
        ({"images": []}, "images is an empty list"),
        ({"images": "nowhere.png"}, "nowhere.png: cannot be read"),
        ({"images": __file__}, "not a readable image; give a picture"),
        ({"images": "https://a.b/c.png"}, "is an address: download the picture"),
        ({"images": [3]}, "an object of type int is no picture"),
        ({"images": np.zeros((1, 4, 4, 3))}, "an array of type float64 and shape"),
        ({"images": np.zeros((4, 4), np.uint8)}, r"of type uint8 and shape \[4, 4\] is no picture"),
        ({"images": np.zeros((0, 4, 3), np.uint8)}, r"shape \[0, 4, 3\] is no picture"),
        ({"images": 3}, "images=3: give one, or a list of them"),
        ({"texts": []}, "texts is an empty list"),
        ({"texts": ["a", " "]}, "the text ' ' has no words"),
        ({"texts": "..."}, "has no words: it needs a letter, a number or a symbol"),
        ({"texts": [b"a"]}, "b'a' is no text: give a string"),
        ({"texts": "a", "blocks": [2]}, "the model has blocks 0 to 1"),
        ({"texts": "a", "blocks": 1}, "blocks=1: give a list of numbers"),
        ({"texts": "a", "blocks": "1"}, "blocks='1': give a list of numbers"),
        ({"images": np.zeros((4, 4, 3), np.uint8), "view": "zoom"}, "choose one of 'squash'"),
    ],
)
def test_mistakes_are_named(random_model, arguments, said):
    with pytest.raises(UsageError, match=said):
        random_model.encode(**arguments)


def test_pairs_must_be_as_many(random_model, pictures):
    with pytest.raises(UsageError, match="3 images and 1 texts make no pairs"):
        random_model.encode_pairs(pictures, "a")


def test_places_without_a_model_are_refused(world, tmp_path):
    with pytest.raises(UsageError, match="is not the folder of a run"):
        vlbeit_jax.load(tmp_path)
    with pytest.raises(UsageError, match="task 'vqkd', which has no Multiway Transformer"):
        vlbeit_jax.load(world.vqkd)
    with pytest.raises(UsageError, match="only folders of this machine, and gs://"):
        vlbeit_jax.load("s3://bucket/run")
    with pytest.raises(UsageError, match='place=None: give "sample", or the folder'):
        vlbeit_jax.load(None)
    with pytest.raises(UsageError, match="weights='mean': choose one of 'raw', 'ema'"):
        vlbeit_jax.load("sample", weights="mean")
    with pytest.raises(UsageError, match="only fine-tuned runs have averaged parameters"):
        vlbeit_jax.load("sample", weights="ema", compilation_cache="")


def test_a_model_without_tokenizers_encodes_pictures(pictures, tmp_path):
    small_run(tmp_path / "run")
    model = vlbeit_jax.load(tmp_path / "run", compilation_cache="")
    assert model.encode(images=pictures).image.shape == (3, 32)
    with pytest.raises(UsageError, match="has no text tokenizer: give one with"):
        model.encode(texts="a")
    with pytest.raises(UsageError, match="has no visual tokenizer"):
        model.reconstruct(pictures[0])


def test_the_package_imports_nothing_heavy():
    program = "import sys, vlbeit_jax; print({'jax', 'numpy', 'cv2'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout == "set()\n", found.stderr
