"""Fast resizing of large crops stays close to the exact area average, and small ones keep it."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.make_data import encoded, picture
from vlbeit_jax.data import image as images
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.headers import shape_in_header
from vlbeit_jax.data.image import REDUCED, Box, RandomView, decode
from vlbeit_jax.data.resize import EXACT_BELOW, resize, resize_view

SIZE = 224
EXIF_TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


def photograph(seed: int, height: int, width: int) -> np.ndarray:
    """Noise whose spectrum falls as that of photographs, 1 / frequency, and as a JPEG keeps it."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    spectrum = rng.normal(size=(3, *frequency.shape)) + 1j * rng.normal(size=(3, *frequency.shape))
    pixels = np.fft.irfft2(spectrum / frequency, (height, width)).transpose(1, 2, 0)
    pixels = 128 + 50 * pixels / pixels.std()
    return np.clip(pixels, 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    return encoded(pixels, "JPEG", quality=90)


def shares(length: int, size: int) -> np.ndarray:
    """How much of each pixel lies in each of ``size`` equal parts of a line, in float64."""
    edges = np.linspace(0, length, size + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length)[None]
    covered = np.minimum(high, pixel + 1) - np.maximum(low, pixel)
    return np.maximum(covered, 0) * size / length


def area_average(pixels: np.ndarray, size: int) -> np.ndarray:
    """The exact mean of the pixels' areas, by nothing but its definition."""
    rows, columns = shares(pixels.shape[0], size), shares(pixels.shape[1], size)
    return np.einsum("ih,hwc,jw->ijc", rows, pixels.astype(float), columns, optimize=True)


def distance(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Mean difference in grey levels, and that which one of a thousand values exceeds."""
    difference = np.abs(found.astype(float) - wanted)
    return float(difference.mean()), float(np.quantile(difference, 0.999))


def bicubic(pixels: np.ndarray, size: int) -> np.ndarray:
    """PIL's antialiased bicubic: another good answer, and so a measure of how near is near."""
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


def farther(found: np.ndarray, pixels: np.ndarray) -> float:
    """How much farther from the area average a view is than PIL's bicubic, on average."""
    wanted = area_average(pixels, len(found))
    return distance(found, wanted)[0] / distance(bicubic(pixels, len(found)), wanted)[0]


def assert_near(view: np.ndarray, pixels: np.ndarray) -> None:
    assert farther(view, pixels) < 0.8
    mean, most = distance(view, area_average(pixels, len(view)))
    assert mean < 1.6 and most < 10


# Crops of a photograph of 500 x 375 for a view of 224, from the smallest that shrinks on.
CROPS = [(230, 240), (270, 300), (335, 335), (375, 440), (375, 500), (445, 445)]


@pytest.mark.parametrize("shape", [(112, 150), *CROPS, (900, 1200)], ids=str)
def test_resizing_is_as_near_to_pil_as_documented(shape):
    pixels = photograph(0, *shape)
    mean, most = distance(resize(pixels, SIZE, SIZE), bicubic(pixels, SIZE))
    assert 1.6 < mean < 3.3 and most < 16


@pytest.mark.parametrize("shape", CROPS, ids=str)
def test_a_large_crop_is_near_the_area_average(shape):
    pixels = decode(jpeg(photograph(0, *shape)))
    assert_near(resize_view(pixels, SIZE), pixels)
    # Rounding alone makes 0.25; the exact way does no better.
    exact = resize(pixels, SIZE, SIZE)
    assert distance(exact, area_average(pixels, SIZE))[0] == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("shape", [(375, 440), (900, 900)], ids=str)
def test_leaving_out_pixels_is_not_near_the_area_average(shape):
    """The control of all bounds here: a linear resize skips pixels of crops of this size."""
    pixels = decode(jpeg(photograph(0, *shape)))
    assert farther(cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR), pixels) > 2


LARGE = [(448, 448), (600, 500), (900, 1400), (2000, 460)]


@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_larger_crops_are_halved_first(shape):
    pixels = decode(jpeg(photograph(1, *shape)))
    even = pixels[: shape[0] // 4 * 4, : shape[1] // 4 * 4]
    assert_near(resize_view(even, SIZE), even)


@pytest.mark.parametrize("shape", [(96, 96), (96, 61), (181, 181), (180, 170), (30, 300)], ids=str)
@pytest.mark.parametrize("size", [64, 224])
def test_small_crops_are_averaged_exactly(shape, size):
    pixels = photograph(2, *shape)
    assert shape[0] * shape[1] < EXACT_BELOW or shape[0] * shape[1] < size * size
    assert np.array_equal(resize_view(pixels, size), resize(pixels, size, size))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_reduced_jpeg_is_near_the_area_average(factor):
    how = RandomView(56, crop_scale=1.0, colour_jitter=0.0, flip=0.0)
    data = jpeg(photograph(3, 160 * factor, 160 * factor))
    view, whole = how.of_file(Draws(0), data), decode(data)
    box = Box(*images._crop_box(Draws(0), *whole.shape[:2], 1.0))
    assert images._reduction((box.height, box.width), 56) == factor
    part = Box(*(side // factor * factor for side in box)).of(whole)
    assert_near(view, part)


@pytest.mark.parametrize("shape", [(500, 375), (1000, 1400), (2400, 1800)], ids=str)
def test_a_file_takes_the_same_draws_as_its_pixels(shape):
    data = jpeg(cv2.resize(picture(4), shape[::-1]))
    how = RandomView(SIZE, crop_scale=0.2, colour_jitter=0.4, flip=0.5)
    for seed in range(5):
        one, other = Draws(seed), Draws(seed)
        views = how.of_file(one, data), how(other, decode(data))
        assert one.word() == other.word()
        # The picture is smooth, so a crop that is one pixel smaller makes no difference.
        assert np.abs(views[0].astype(int) - views[1]).mean() < 1.5


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_flags_of_a_reduction_are_those_of_opencv(factor):
    data = np.frombuffer(jpeg(photograph(5, 90, 125)), np.uint8)
    bgr = cv2.imdecode(data, getattr(cv2, f"IMREAD_REDUCED_COLOR_{factor}"))
    found = decode(data.tobytes(), factor)
    assert factor in REDUCED and np.array_equal(found, bgr[..., ::-1])
    assert found.shape[:2] == (-(-90 // factor), -(-125 // factor))


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}, {"subsampling": 0}]
)
def test_the_header_of_a_jpeg_has_its_shape(options):
    data = encoded(picture(6, 41, 67), "JPEG", **{"mode": "RGB"} | options)
    assert shape_in_header(data) == decode(data).shape[:2] == (41, 67)


def test_a_picture_that_may_be_turned_has_no_shape_in_its_header():
    buffer = io.BytesIO()
    Image.fromarray(picture(7, 40, 64)).save(buffer, "JPEG", exif=EXIF_TURNED)
    assert decode(buffer.getvalue()).shape[:2] == (64, 40)
    assert shape_in_header(buffer.getvalue()) is None
    data = jpeg(picture(7))
    # After the scan begins, no frame follows.
    for other in (encoded(picture(7)), b"", b"\xff\xd8", data[:30], b"\xff\xd8\xff\xda" + data[2:]):
        assert shape_in_header(other) is None
