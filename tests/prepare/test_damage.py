"""Records with every kind of damage, in random order: each is kept, mended or counted."""

import collections
import io
import json
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.make_data import build, encoded, picture, png_header, records, write_tar
from vlbeit_jax.data.image import decode
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import base
from vlbeit_jax.prepare.pictures import Limits
from vlbeit_jax.types import Kind

JPEG = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), "JPEG")
AVIF = encoded(picture(0, 64, 64), "AVIF")
KEPT = ""
MAX_BYTES = 20_000


def chunk(name, content):
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(header, *chunks):
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *header)) + b"".join(chunks)
    )


def grey_of_16_bits(seed):
    """Bands of grey 64, 128 and 192 in 16 bits, of which another value is transparent."""
    row = np.repeat(np.array([16448, 32896, 49344], ">u2"), 16)
    rows = b"".join(b"\0" + row.tobytes() for _ in range(32 + seed % 7))
    return png(
        (48, 32 + seed % 7, 16, 0, 0, 0, 0),
        chunk(b"tRNS", b"\0\1"),
        chunk(b"tEXt", b"number\0" + str(seed).encode()),
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    )


def with_short_exif(seed):
    """A transparent PNG whose EXIF has four bytes."""
    pixels = np.concatenate([picture(seed, 32, 32), np.full((32, 32, 1), 128, np.uint8)], axis=2)
    whole = encoded(pixels, "PNG", "RGBA")
    return whole[:33] + chunk(b"eXIf", b"II*\0") + whole[33:]


def damaged_avif(seed):
    return AVIF[:-40] + bytes([seed % 256]) * 40


def caption(seed, **parts):
    return {"png": encoded(picture(seed, 32, 32)), "txt": f"caption {seed}".encode(), **parts}


def told_by_json(seed, text):
    """JSON can say what UTF-8 cannot."""
    escaped = json.dumps({"caption": f"{text} {seed}"}).encode()
    return {"png": encoded(picture(seed, 32, 32)), "json": escaped}


# What becomes of each: the reason under which it is dropped, or KEPT and what was mended.
CASES = {
    "good": (KEPT, "", caption),
    "cut_jpeg": ("undecodable_image", "", lambda i: caption(i, png=JPEG[: 700 + i % 900])),
    "cut_png": (
        "undecodable_image",
        "",
        lambda i: caption(i, png=encoded(picture(i, 99, 99))[: -20 - i % 30]),
    ),
    "no_pixels": (
        "undecodable_image",
        "",
        lambda i: caption(i, png=png_header(99, 99 + i % 500)),
    ),
    "avif": ("undecodable_image", "", lambda i: caption(i, png=damaged_avif(i))),
    "page": ("not_an_image", "", lambda i: caption(i, png=b"<html>404</html> %d" % i)),
    "svg": ("svg_image", "", lambda i: caption(i, png=b"<svg id='%d'></svg>" % i)),
    "empty": ("empty_file", "", lambda i: caption(i, png=b"")),
    "bomb": ("image_too_large", "", lambda i: caption(i, png=png_header(30_000, 20_000 + i))),
    "large": ("file_too_large", "", lambda i: caption(i, png=JPEG + bytes(MAX_BYTES + i))),
    "small": ("image_too_small", "", lambda i: caption(i, png=encoded(picture(i, 1, 1)))),
    "long": ("image_too_elongated", "", lambda i: caption(i, png=encoded(picture(i, 20, 300)))),
    "bare": ("no_caption", "", lambda i: {"png": encoded(picture(i, 32, 32))}),
    "blank": ("no_caption", "", lambda i: caption(i, txt=b" \n")),
    "marks_alone": ("no_caption", "mark", lambda i: caption(i, txt="\u200e\u202a".encode())),
    "exif": (KEPT, "", lambda i: caption(i, png=with_short_exif(i))),
    "grey": (KEPT, "", lambda i: caption(i, png=grey_of_16_bits(i))),
    "surrogate": (KEPT, "surrogate", lambda i: told_by_json(i, "half \ud83d a face")),
    "nul": (KEPT, "mark", lambda i: caption(i, txt=b"a\0caption %d" % i)),
    "direction": (KEPT, "mark", lambda i: caption(i, txt=f"\u202bcaption\u202c {i}".encode())),
}
MENDED = {"surrogate": "lone_surrogate", "mark": "control_or_direction_mark"}


def mixed(folder, count):
    """A tar of so many records in random order, and the name of the case of each."""
    draws = random.Random(0)
    names = draws.choices(list(CASES), k=count)
    members = []
    for number, name in enumerate(names):
        for suffix, content in CASES[name][2](number).items():
            members.append((f"{number:05d}.{suffix}", content))
    return write_tar(folder / "mixed.tar", members), names


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_counts_are_exact(tmp_path, count):
    tar, names = mixed(tmp_path, count)
    limits = Limits(max_bytes=MAX_BYTES)
    meta = build(tmp_path / "set", Kind.PAIRS, [tar], max_dropped=1, limits=limits)
    reasons = collections.Counter(CASES[name][0] for name in names)
    kept = reasons.pop(KEPT)
    assert meta["dropped"] == reasons and min(reasons.values()) > 10
    assert sum(meta["counts"].values()) == kept and meta["items"] == count
    mended = collections.Counter(MENDED[CASES[n][1]] for n in names if CASES[n][1])
    assert meta["repaired"] == mended and len(mended) == len(MENDED)
    found = {record["id"].decode(): record for record in records(tmp_path / "set")}
    wanted = {f"mixed/{n:05d}" for n, name in enumerate(names) if CASES[name][0] == KEPT}
    assert found.keys() == wanted
    for number, name in enumerate(names):
        record = found.get(f"mixed/{number:05d}")
        if record is None:
            continue
        (said,) = (text.decode() for text in record["captions"])
        assert said.endswith(f" {number}") and not set(said) & set("\0\u202b\u202c")
        pixels = decode(record["image"])
        if name == "grey":
            assert set(np.unique(pixels)) == {64, 128, 192}
        if name == "exif":  # Half transparent on white.
            assert np.abs(pixels - (picture(number, 32, 32) / 2 + 127.5)).max() <= 1
        if name == "surrogate":
            assert said == f"half \N{REPLACEMENT CHARACTER} a face {number}"


def test_the_damage_is_what_it_is_called():
    """Controls: Pillow refuses the EXIF and the AVIF, and clips the grey to white."""
    with pytest.raises(struct.error):
        Image.open(io.BytesIO(with_short_exif(0))).getexif()
    with pytest.raises((RuntimeError, OSError)):
        Image.open(io.BytesIO(damaged_avif(0))).load()
    assert set(Image.open(io.BytesIO(grey_of_16_bits(0))).convert("RGB").tobytes()) == {255}


def damaged(folder, tars=4):
    """Tars of which the second is cut off."""
    found = []
    for number in range(tars):
        members = [
            (f"{i:03d}.{suffix}", content)
            for i in range(30 * number, 30 * number + 30)
            for suffix, content in caption(i).items()
        ]
        found.append(write_tar(folder / f"{number}.tar", members))
    found[1].write_bytes(found[1].read_bytes()[:9000])
    return found


@pytest.mark.parametrize("in_one_part", [True, False])
def test_a_damaged_file_is_named_and_parts_are_kept(tmp_path, monkeypatch, in_one_part):
    if not in_one_part:
        monkeypatch.setattr(base, "UNIT_TEXT", 1)
    tars, out = damaged(tmp_path), tmp_path / "set"
    with pytest.raises(UsageError, match=r"1\.tar: .*--bad_inputs=skip") as stopped:
        build(out, Kind.PAIRS, tars)
    assert ("1 of 4 parts are finished" in str(stopped.value)) != in_one_part
    assert (tmp_path / "set.work").exists() != in_one_part and not out.exists()
    skipped = build(tmp_path / "skipped", Kind.PAIRS, tars, bad_inputs="skip")
    assert sum(skipped["counts"].values()) == 90
    ((name, why),) = skipped["bad_inputs"]
    assert name == "1.tar" and "tar" in why
    ids = {record["id"].decode().split("/")[0] for record in records(tmp_path / "skipped")}
    assert ids == {"0", "2", "3"}
    # The same command goes on, with the file or without it.
    again = build(out, Kind.PAIRS, tars, bad_inputs="skip")
    assert again["fingerprint"] == skipped["fingerprint"]


def test_a_file_that_was_replaced_is_read_and_finished_parts_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "UNIT_TEXT", 1)
    tars = damaged(tmp_path)
    with pytest.raises(UsageError, match="1 of 4 parts are finished"):
        build(tmp_path / "set", Kind.PAIRS, tars)
    part = tmp_path / "set.work" / "parts" / "00000.json"
    before = part.stat().st_mtime_ns
    members = [(f"{i}.{s}", c) for i in range(500, 510) for s, c in caption(i).items()]
    write_tar(tars[1], members)
    assert not build(tmp_path / "set", Kind.PAIRS, tars, part_range=(1, 2))
    assert part.stat().st_mtime_ns == before
    assert sum(build(tmp_path / "set", Kind.PAIRS, tars)["counts"].values()) == 100
