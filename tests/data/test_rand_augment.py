"""Both RandAugments to the letter of their sources, and random erasing."""

import math

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.erasing import AREA, ASPECT, erased_box
from vlbeit_jax.data.rand_augment import LIGHT, STRONG, RandAugment, _normal, equalise, stretch

GREY = 128


def photograph(height=40, width=30, seed=0):
    """Smooth, in colour, with a narrow histogram."""
    coarse = np.random.default_rng(seed).integers(60, 200, (5, 4, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def light(index, image, strength=0.7, negative=False):
    return LIGHT.operations[index](image, strength, negative)


def strong(index, image, strength=0.9, negative=False):
    return STRONG.operations[index](image, strength, negative)


def test_each_variant_has_its_operations_and_magnitude():
    assert (len(LIGHT.operations), LIGHT.magnitude, LIGHT.deviation) == (10, 7, 0)
    assert (len(STRONG.operations), STRONG.magnitude, STRONG.deviation) == (15, 9, 0.5)


@pytest.mark.parametrize("seed", range(4))
def test_equalising_and_stretching_are_pillows(seed):
    image = photograph(seed=seed)
    pillow = Image.fromarray(image)
    np.testing.assert_array_equal(equalise(image), ImageOps.equalize(pillow))
    difference = stretch(image).astype(int) - np.asarray(ImageOps.autocontrast(pillow))
    assert np.abs(difference).max() <= 1
    assert stretch(image).min() == 0 and stretch(image).max() == 255
    flat = np.full((8, 8, 3), 77, np.uint8)  # Nothing to stretch, nothing to equalise.
    np.testing.assert_array_equal(stretch(flat), flat)
    np.testing.assert_array_equal(equalise(flat), flat)


def test_light_operations_at_magnitude_7():
    image = photograph()
    height, width = image.shape[:2]
    np.testing.assert_array_equal(light(0, image), image)
    # 0.7 * 1.8 + 0.1 = 1.36: always brighter.
    np.testing.assert_array_equal(light(3, image), np.minimum((image * 1.36), 255).astype(np.uint8))
    sharp = np.asarray(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(1.36), int)
    assert np.abs(light(4, image).astype(int) - sharp).max() <= 1
    # Seven pixels, whatever the size; the border is grey.
    for image in (photograph(40, 30), photograph(90, 80)):
        right, up = light(8, image), light(9, image, negative=True)
        np.testing.assert_array_equal(right[:, 7:], image[:, :-7])
        np.testing.assert_array_equal(up[:-7], image[7:])
        assert (right[:, :7] == GREY).all() and (up[-7:] == GREY).all()
    image = photograph()
    sheared = light(6, image)  # x = x' + 0.21 y' of the source: row 20 moves by 4.2 pixels.
    row = np.interp(np.arange(8, 28) - 4.2, np.arange(width), image[20, :, 0])
    np.testing.assert_allclose(sheared[20, 8:28, 0], row, atol=1.5)
    turned = light(5, image)
    angle = math.radians(21)  # Counter-clockwise, about the centre.
    y, x = 24, 18
    dy, dx = y - height / 2, x - width / 2
    source = (
        width / 2 + dx * math.cos(angle) - dy * math.sin(angle),
        height / 2 + dx * math.sin(angle) + dy * math.cos(angle),
    )
    nearest = image[round(source[1]), round(source[0])].astype(int)
    assert np.abs(turned[y, x].astype(int) - nearest).max() <= 8
    assert (turned[0, 0] == GREY).all()


def test_strong_operations_at_magnitude_9():
    image = photograph()
    pillow = Image.fromarray(image)
    expected = {
        0: ImageOps.autocontrast(pillow),
        1: ImageOps.equalize(pillow),
        2: ImageOps.invert(pillow),
        3: pillow.rotate(27, Image.Resampling.BICUBIC, fillcolor=(GREY,) * 3),
        4: ImageOps.posterize(pillow, 1),
        5: ImageOps.solarize(pillow, 26),
        7: ImageEnhance.Color(pillow).enhance(1.81),
        8: ImageEnhance.Contrast(pillow).enhance(1.81),
        9: ImageEnhance.Brightness(pillow).enhance(1.81),
        10: ImageEnhance.Sharpness(pillow).enhance(1.81),
    }
    for index, wanted in expected.items():
        np.testing.assert_array_equal(strong(index, image), np.asarray(wanted), str(index))
    np.testing.assert_array_equal(
        strong(9, image, negative=True), np.asarray(ImageEnhance.Brightness(pillow).enhance(0.19))
    )
    lifted = strong(6, image)  # By 99 below the middle.
    np.testing.assert_array_equal(lifted, np.where(image < 128, image + 99, image))
    # 0.405 of the width of 30 pixels, of the height of 40: 12.15 and 16.2 pixels.
    moved, down = strong(13, image), strong(14, image, negative=True)
    assert np.abs(moved[10:-10, :15].astype(int) - image[10:-10, 12:27]).max() <= 6
    assert np.abs(down[18:, 5:-5].astype(int) - image[2:-16, 5:-5]).max() <= 6
    assert (moved[:, -11:] == GREY).all() and (down[:15] == GREY).all()
    for index in range(15):  # Control: each operation changes the image.
        assert not np.array_equal(strong(index, image), image), index


def test_two_operations_each_with_probability_one_half():
    counted = []

    def operation(image, strength, negative):
        counted.append((strength, negative))
        return image

    policy = RandAugment((operation, operation), 9, 0.5)
    for number in range(2000):
        policy(Draws("test", number), photograph())
    strengths, signs = np.array([each[0] for each in counted]), [each[1] for each in counted]
    assert abs(len(counted) / 2000 - 1) < 0.05
    assert abs(np.mean(signs) - 0.5) < 0.04
    # Normal with mean 0.9 and deviation 0.05, cut at 1, which is two deviations away.
    assert strengths.max() == 1.0 and abs((strengths == 1).mean() - 0.0228) < 0.012
    assert abs(np.median(strengths) - 0.9) < 0.005
    assert abs(np.quantile(strengths, 0.1587) - 0.85) < 0.006
    draws = [_normal(Draws("normal", i)) for i in range(3000)]
    assert abs(np.mean(draws)) < 0.05 and abs(np.std(draws) - 1) < 0.04


@pytest.mark.parametrize("policy", [LIGHT, STRONG], ids=["light", "strong"])
def test_a_draw_decides_everything(policy):
    image = photograph(32, 32)
    results = [policy(Draws("augment", seed), image) for seed in range(40)]
    again = [policy(Draws("augment", seed), image) for seed in range(40)]
    for one, other in zip(results, again, strict=True):
        assert one.dtype == np.uint8 and one.shape == image.shape and one.flags.c_contiguous
        np.testing.assert_array_equal(one, other)
    assert len({one.tobytes() for one in results}) > 12


def test_erased_boxes_have_the_stated_share_area_and_aspect():
    size = 100
    boxes = np.array([erased_box(Draws("erase", i), size, 0.25) for i in range(4000)])
    erased = boxes[boxes[:, 2] > 0]
    assert abs(len(erased) / len(boxes) - 0.25) < 0.025
    top, left, height, width = erased.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= size).all() and (left + width <= size).all()
    area, ratio = height * width / size**2, height / width
    assert area.min() > AREA[0] * 0.85 and area.max() < AREA[1] * 1.1
    assert ratio.min() > ASPECT[0] * 0.85 and ratio.max() < ASPECT[1] * 1.15
    assert abs(np.median(area) - np.mean(AREA)) < 0.03 and abs(np.median(np.log(ratio))) < 0.1
    assert not any(erased_box(Draws("erase", i), size, 0.0).any() for i in range(20))
