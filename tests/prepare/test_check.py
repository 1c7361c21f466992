"""Which items are kept: reasons for dropping, cheap checks first, the bytes of what stays."""

import hashlib
import io
import time

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.make_data import encoded, picture, png_header
from vlbeit_jax.data.image import decode
from vlbeit_jax.prepare import pictures
from vlbeit_jax.prepare.check import Dropped, Limits, checked, checked_image
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

GOOD = encoded(picture(0))
FORMATS = [
    ("JPEG", "RGB"),
    ("JPEG", "L"),
    ("JPEG", "CMYK"),
    ("PNG", "RGB"),
    ("PNG", "L"),
    ("PNG", "1"),
    ("GIF", "P"),
    ("WEBP", "RGB"),
]


def reason(data, **limits):
    with pytest.raises(Dropped) as dropped:
        checked_image(data, Limits(**limits))
    return str(dropped.value)


@pytest.mark.parametrize("file_format, mode", FORMATS)
def test_plain_files_stay_as_they_are(file_format, mode):
    data = encoded(picture(1), file_format, mode)
    assert checked_image(data, Limits()) == data


@pytest.mark.parametrize(
    "wanted, data",
    [
        ("not_an_image", b"<!DOCTYPE html><html>404</html>"),
        ("not_an_image", b"\xff\xd8\xff"),
        ("not_an_image", bytes(5000)),
        ("not_an_image", GOOD[:20]),
        ("image_too_large", png_header(30_000, 30_000)),  # above the size that Pillow refuses
        ("image_too_large", png_header(10_000, 10_000)),  # above the size that Pillow warns of
        ("image_too_large", png_header(8_001, 8_000)),
        ("image_too_large", png_header(1, 100_000_000)),
        ("image_too_small", encoded(picture(2, 1, 1))),
        ("image_too_small", encoded(picture(2, 1, 5000))),
        ("image_too_small", encoded(picture(2, 15, 100))),
        ("image_too_elongated", encoded(picture(2, 16, 161))),
        ("image_too_elongated", encoded(picture(2, 5000, 20))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_cheap_checks_come_first(monkeypatch, wanted, data):
    """Nothing is decoded, so that a decompression bomb costs nothing."""

    def decoded(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decoded)
    monkeypatch.setattr(pictures, "_complete", decoded)
    begun = time.monotonic()
    assert reason(data) == wanted
    assert time.monotonic() - begun < 0.5


@pytest.mark.parametrize(
    "file_format, mode",
    [*FORMATS, ("PNG", "RGBA"), ("PNG", "LA"), ("WEBP", "RGBA"), ("BMP", "RGB")],
)
@pytest.mark.parametrize("part", [0.6, 0.99])
def test_cut_off_files_are_dropped(file_format, mode, part):
    noise = np.random.default_rng(3).integers(0, 256, (64, 64, 4), np.uint8)
    data = encoded(noise, file_format, mode)
    wanted = (
        "not_an_image" if file_format == "WEBP" else "undecodable_image"
    )  # Pillow reads a WebP whole or not at all
    assert reason(data[: int(len(data) * part)]) == wanted


def test_a_size_without_pixels_is_dropped():
    assert reason(png_header(100, 100)) == "undecodable_image"


def test_limits_hold_at_their_bounds():
    for height, width in ((16, 16), (16, 160), (160, 16)):
        assert decode(checked_image(encoded(picture(4, height, width)), Limits())).shape == (
            height,
            width,
            3,
        )
    assert (
        reason(GOOD, max_pixels=20 * 24 - 1) == "image_too_large"
        and checked_image(GOOD, Limits(max_pixels=20 * 24)) == GOOD
    )
    assert (
        reason(GOOD, min_side=21) == "image_too_small"
        and checked_image(GOOD, Limits(min_side=20)) == GOOD
    )
    assert (
        reason(GOOD, max_aspect=1.1) == "image_too_elongated"
        and checked_image(GOOD, Limits(max_aspect=1.2)) == GOOD
    )


def with_alpha():
    pixels = picture(5, 30, 40, channels=4)
    pixels[:10, ..., 3], pixels[10:20, ..., 3], pixels[20:, ..., 3] = 0, 128, 255
    return pixels


@pytest.mark.parametrize(
    "file_format, mode", [("PNG", "RGBA"), ("PNG", "LA"), ("TIFF", "RGBA"), ("WEBP", "RGBA")]
)
def test_transparent_pictures_lie_on_white(file_format, mode):
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    data = encoded(with_alpha(), file_format, mode, **options)
    layer = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"), float)
    share = layer[..., 3:] / 255
    found = decode(checked_image(data, Limits()))
    assert np.abs(found - (layer[..., :3] * share + 255 * (1 - share))).max() <= 1
    assert (found[:10] == 255).all()


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_a_transparent_colour_lies_on_white(file_format):
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:, 10:] = [0, 204, 0]  # in Pillow's palette
    data = encoded(
        pixels, file_format, "P", transparency=Image.fromarray(pixels).convert("P").getpixel((0, 0))
    )
    found = decode(checked_image(data, Limits()))
    assert (found[:, :10] == 255).all() and (found[:, 10:] == [0, 204, 0]).all()


# PNG with RGBA FAILS (defect in prepare/check.py): flattening forgets the orientation.
@pytest.mark.parametrize(
    "file_format, mode", [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGBA")]
)
@pytest.mark.parametrize("short_side", [0, 16])
def test_what_is_stored_stands_upright(file_format, mode, short_side):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(6, 20, 60), file_format, mode, exif=exif)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    found = decode(checked_image(data, Limits(short_side=short_side)))
    assert found.shape == ((48, 16, 3) if short_side else (60, 20, 3))
    assert (
        np.abs(
            found - np.asarray(wanted.resize(found.shape[1::-1], Image.Resampling.BOX), float)
        ).mean()
        < 5
    )


@pytest.mark.parametrize(
    "height, width, wanted",
    [(64, 96, (32, 48)), (96, 64, (48, 32)), (32, 48, None), (20, 90, None)],
)
def test_larger_pictures_are_made_smaller(height, width, wanted):
    data = encoded(picture(7, height, width), "JPEG")
    found = checked_image(data, Limits(short_side=32))
    if wanted is None:
        assert found == data
    else:
        assert (
            decode(found).shape == (*wanted, 3) and Image.open(io.BytesIO(found)).format == "JPEG"
        )
        assert (
            np.abs(
                cv2.resize(picture(7, height, width), wanted[::-1]).astype(float) - decode(found)
            ).mean()
            < 4
        )


@pytest.mark.parametrize(
    "file_format, mode", [*FORMATS, ("PNG", "RGBA"), ("WEBP", "RGBA"), ("BMP", "RGB")]
)
def test_damaged_files_are_dropped_or_stay_readable(file_format, mode):
    data = encoded(picture(8, 40, 40), file_format, mode)
    kept = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 64 if seed % 2 else len(data)), 3):
            damaged[place] = rng.integers(256)
        try:
            stored = checked_image(bytes(damaged), Limits())
        except Dropped:
            continue
        decode(stored)
        kept += 1
    assert kept < 60


@pytest.mark.parametrize(
    "item, kind, wanted",
    [
        (Item("k"), Kind.TEXTS, "no_text"),
        (Item("k", image=GOOD), Kind.TEXTS, "no_text"),
        (Item("k", text="t"), Kind.IMAGES, "no_image"),
        (Item("k", image=b"", captions=("c",)), Kind.PAIRS, "empty_file"),
        (Item("k", image=GOOD), Kind.PAIRS, "no_caption"),
        (Item("k", image=b"<html>", captions=("c",)), Kind.PAIRS, "not_an_image"),
    ],
)
def test_items_without_a_part_are_dropped(item, kind, wanted):
    with pytest.raises(Dropped, match=f"^{wanted}$"):
        checked(item, kind, Limits())


def test_records_have_the_schema_of_their_kind():
    item = Item("k", GOOD, ("a", "b"), "t", "folder/k.png")
    wanted = {"id": "k", "source": "folder/k.png"}
    image = wanted | {"sha256": hashlib.sha256(GOOD).hexdigest(), "image": GOOD}
    assert checked(item, Kind.IMAGES, Limits()) == image
    assert checked(item, Kind.PAIRS, Limits()) == image | {"captions": ["a", "b"]}
    assert checked(item, Kind.TEXTS, Limits()) == wanted | {"text": "t"}


def test_a_picture_keeps_the_hash_of_its_own_file_when_it_is_encoded_again():
    for data in (encoded(picture(9, 64, 96), "JPEG"), encoded(with_alpha(), "PNG", "RGBA")):
        record = checked(Item("k", data), Kind.IMAGES, Limits(short_side=16))
        assert record["image"] != data and record["sha256"] == hashlib.sha256(data).hexdigest()
