"""Images with masks: both are scaled, cut and flipped together, and only the image is coloured."""

import numpy as np
import pytest

from tests import tiny
from vlbeit_jax.config.finetune import MasksConfig
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.segmented import GREY, SegmentedImage, distorted, segmented_specs
from vlbeit_jax.data.masks import mask_bytes, overlay, palette
from vlbeit_jax.metrics.segmentation import IGNORED

COLOURS = np.array([(30, 30, 30), (250, 40, 40), (40, 60, 240)], np.uint8)
SIZE = 32


def record(height=40, width=60, seed=0):
    """Each class has its colour, in blocks, so that resized pictures tell the class too."""
    coarse = np.random.default_rng(seed).integers(0, 3, (4, 6)).astype(np.uint8)
    mask = np.kron(coarse, np.ones((height // 4, width // 6), np.uint8))
    return {"id": f"{seed}", "image": tiny.png(COLOURS[mask]), "mask": mask_bytes(mask)}


def example(settings=None, **made):
    settings = {"photometric": False} | (settings or {})
    make = SegmentedImage(MasksConfig(**settings), SIZE)
    return make(record(**made), Draws("test", made.get("seed", 0)))


def nearest(image):
    distance = np.abs(image[..., None, :].astype(int) - COLOURS).sum(-1)
    return distance.argmin(-1), distance.min(-1)


@pytest.mark.parametrize("seed", range(6))
def test_masks_fit_their_pictures_after_scale_crop_and_flip(seed):
    found = example(seed=seed)
    assert found["image"].shape == (SIZE, SIZE, 3) and found["mask"].shape == (SIZE, SIZE)
    counted = found["mask"] != IGNORED
    classes, distance = nearest(found["image"])
    sure = counted & (distance < 30)  # Not between two blocks.
    assert sure.sum() > 0.4 * counted.sum() > 0
    assert (classes[sure] == found["mask"][sure]).mean() > 0.99
    # Around the picture is grey, which does not count.
    assert (found["image"][~counted] == GREY).all()
    for name, spec in segmented_specs(SIZE).items():
        assert np.asarray(found[name]).shape == spec.shape
        assert np.asarray(found[name]).dtype == spec.dtype


def test_a_seed_reproduces_an_example_and_another_gives_another():
    one, again = example(seed=1), example(seed=1)
    for name in one:
        np.testing.assert_array_equal(one[name], again[name])
    make = SegmentedImage(MasksConfig(), SIZE)
    others = [make(record(), Draws("test", number)) for number in range(4)]
    assert len({each["image"].tobytes() for each in others}) == 4


def test_small_scales_leave_a_border_and_large_ones_do_not():
    settings = {"smallest_scale": 0.5, "largest_scale": 0.5}
    found = example(settings)
    # The shorter side of 40 becomes 16, the longer one 24.
    assert (found["mask"][:16, :24] != IGNORED).all()
    assert (found["mask"] == IGNORED).sum() == SIZE**2 - 16 * 24
    large = example({"smallest_scale": 2.0, "largest_scale": 2.0})
    assert (large["mask"] != IGNORED).all()


def test_a_crop_of_one_class_is_drawn_again():
    mask = np.zeros((64, 64), np.uint8)
    mask[24:40, 24:40] = 1
    given = {"id": "a", "image": tiny.png(COLOURS[mask]), "mask": mask_bytes(mask)}
    plain = {"photometric": False, "smallest_scale": 2.0, "largest_scale": 2.0, "flip": 0.0}

    def shares(most):
        make = SegmentedImage(MasksConfig(**plain, one_class=most), SIZE)
        return [(make(given, Draws("t", i))["mask"] == 0).mean() for i in range(40)]

    assert np.mean(np.array(shares(0.9)) > 0.9) < 0.5 * np.mean(np.array(shares(1.0)) > 0.9)


def test_colours_change_within_their_bounds():
    image = np.random.default_rng(0).integers(60, 190, (8, 8, 3)).astype(np.uint8)
    found = [distorted(Draws("colour", number), image) for number in range(64)]
    same = sum((each == image).all() for each in found)
    assert 0 < same < 12  # One of sixteen.
    assert all(each.dtype == np.uint8 for each in found)
    means = np.array([each.mean() for each in found])
    assert means.min() < 100 and means.max() > 140


def test_overlays_have_the_colours_of_the_palette():
    colours = palette()
    assert len({tuple(each) for each in colours}) == 256
    np.testing.assert_array_equal(colours[:4], [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)])
    image, mask = np.full((2, 2, 3), 100, np.uint8), np.array([[0, 1], [1, 0]], np.uint8)
    np.testing.assert_array_equal(overlay(image, mask)[0], [(45, 45, 45), (115, 45, 45)])
