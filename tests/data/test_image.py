"""Files of every colour mode become upright RGB pixels; views keep shape, bounds and colours."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.make_data import encoded, picture
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.image import RandomView, _crop_box, _jitter_map, centre_view, decode, resize

GREY = [0.299, 0.587, 0.114]
SMALL_VIEW = RandomView(16, crop_scale=0.2, colour_jitter=0.4, flip=0.5)
SHAPES = [(1, 1), (1, 5000), (5000, 1), (3, 7), (20, 24), (300, 200), (64, 64)]


@pytest.mark.parametrize(
    "file_format, mode, error",
    [
        ("JPEG", "RGB", 3),
        ("JPEG", "L", 3),
        ("JPEG", "CMYK", 4),
        ("PNG", "RGB", 0),
        ("PNG", "L", 0),
        ("PNG", "LA", 0),
        ("PNG", "P", 0),
        ("PNG", "1", 0),
        ("PNG", "RGBA", 0),
        ("GIF", "P", 0),
        ("WEBP", "RGB", 4),
        ("WEBP", "RGBA", 4),
        ("BMP", "RGB", 0),
        ("TIFF", "RGB", 0),
    ],
)
def test_every_mode_becomes_rgb(file_format, mode, error):
    data = encoded(picture(0, 40, 30), file_format, mode)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)
    found = decode(data)
    assert found.shape == (40, 30, 3) and found.dtype == np.uint8
    assert np.abs(found - wanted).mean() <= error


def test_sixteen_bits_keep_the_upper_eight():
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    assert np.array_equal(decode(buffer.getvalue()), np.repeat(levels[..., None] // 257, 3, axis=2))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(1, 40, 64), file_format, exif=exif)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), float)
    found = decode(data)
    assert found.shape == wanted.shape and np.abs(found - wanted).mean() < 4


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"<html>404</html>", bytes(1000), encoded(picture(2))[:20]], ids=len
)
def test_what_is_no_image_is_an_error(data):
    with pytest.raises(ValueError, match=f"{len(data)} bytes"):
        decode(data)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("part", [0.5, 0.99])
def test_a_cut_off_file_is_an_error(file_format, part):
    whole = encoded(np.random.default_rng(3).integers(0, 256, (100, 100, 3), np.uint8), file_format)
    with pytest.raises(ValueError, match="not a readable image"):
        decode(whole[: int(len(whole) * part)])


@pytest.mark.parametrize("shape", SHAPES)
def test_random_views_have_one_shape_and_follow_their_generator(shape):
    pixels = picture(4, *shape)
    for seed in range(20):
        view = SMALL_VIEW(Draws(seed), pixels)
        assert view.shape == (16, 16, 3) and view.dtype == np.uint8 and view.flags["C_CONTIGUOUS"]
        assert np.array_equal(view, SMALL_VIEW(Draws(seed), pixels))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.0, 0.2, 1.0])
def test_crops_stay_inside(shape, scale):
    for seed in range(50):
        top, left, height, width = _crop_box(Draws(seed), *shape, scale)
        assert 0 <= top < top + height <= shape[0] and 0 <= left < left + width <= shape[1]


def test_crops_have_the_asked_for_area_and_aspect():
    boxes = np.array([_crop_box(Draws(seed), 1000, 1000, 0.5) for seed in range(1000)])
    area, aspect = boxes[:, 2] * boxes[:, 3] / 1e6, boxes[:, 3] / boxes[:, 2]
    assert 0.495 < area.min() < 0.51 and 0.95 < area.max() <= 1
    assert 0.745 < aspect.min() < 0.77 and 1.3 < aspect.max() < 1.338
    boxes = boxes[boxes[:, 2:].max(axis=1) < 950]
    inside = boxes[:, :2] / (1000 - boxes[:, 2:])  # where the box lies in the room it leaves
    assert np.quantile(inside, [0.25, 0.5, 0.75], axis=0) == pytest.approx(
        np.array([[0.25] * 2, [0.5] * 2, [0.75] * 2]), abs=0.06
    )


def test_flip_mirrors():
    plain, mirrored = (
        RandomView(16, crop_scale=0.5, colour_jitter=0.0, flip=flip)(Draws(5), picture(5))
        for flip in (0.0, 1.0)
    )
    assert np.array_equal(plain[:, ::-1], mirrored) and not np.array_equal(plain, mirrored)


def test_jitter_by_one_changes_nothing():
    found = _jitter_map(Draws(0), picture(6), 0.0)
    assert np.allclose(found, np.eye(3, 4), atol=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_jitter_is_brightness_contrast_and_saturation_one_after_the_other(seed):
    view = picture(7).astype(float)
    draws = Draws(seed)
    brightness, contrast, saturation = (draws.uniform(0.6, 1.4) for _ in range(3))
    wanted = view
    for kind in draws.choose(3, 3):
        if kind == 0:
            wanted = wanted * brightness
        elif kind == 1:
            wanted = wanted * contrast + (wanted @ GREY).mean() * (1 - contrast)
        else:
            wanted = wanted * saturation + (wanted @ GREY)[..., None] * (1 - saturation)
    found = _jitter_map(Draws(seed), picture(7), 0.4)
    assert np.allclose(view @ found[:, :3].T + found[:, 3], wanted, atol=1e-2)


@pytest.mark.parametrize("amount", [0.4, 2.0])
def test_jitter_clips_and_never_wraps(amount):
    bright = np.full((20, 20, 3), 250, np.uint8)
    views = [
        RandomView(8, crop_scale=1.0, colour_jitter=amount, flip=0.0)(Draws(s), bright)
        for s in range(50)
    ]
    values = np.array([view.mean() for view in views])
    assert values.max() == 255 and values.min() >= 250 * max(0, 1 - amount) - 1
    assert all(np.ptp(view) <= 1 for view in views)  # still grey, up to rounding


@pytest.mark.parametrize("size", [15, 30, 45])
@pytest.mark.parametrize("axis", [0, 1])
def test_centre_view_is_the_centre(size, axis):
    thirds = np.repeat(np.eye(3, dtype=np.uint8) * 255, 30, axis=0)  # red, green, blue
    pixels = np.repeat(thirds[:, None] if axis == 0 else thirds[None], 30, axis=1 - axis)
    assert pixels.shape == ((90, 30, 3) if axis == 0 else (30, 90, 3))
    view = centre_view(pixels, size)
    assert view.shape == (size, size, 3)
    inner = view[3:-3, 3:-3].reshape(-1, 3)
    assert np.abs(inner.astype(int) - [0, 255, 0]).max() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (3, 30), (33, 17), (224, 224)])
def test_centre_view_has_one_shape(shape):
    view = centre_view(picture(8, *shape), 16)
    assert view.shape == (16, 16, 3) and view.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("height, width", [(16, 16), (200, 300)])
def test_resize_comes_close_to_pil(height, width):
    pixels = picture(9, 64, 96)
    wanted = np.asarray(
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC), float
    )
    assert np.abs(resize(pixels, height, width) - wanted).mean() < 0.5


def test_opencv_starts_no_threads():
    assert cv2.getNumThreads() == 1
