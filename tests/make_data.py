"""Small inputs made on the spot: images, tars, texts, prepared sets and a text tokenizer."""

import dataclasses
import io
import pathlib
import struct
import tarfile
import types
import zlib
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vlbeit_jax.data.source import TRAIN, VALIDATION, open_set
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.prepare.build import build_set
from vlbeit_jax.prepare.decide import Wishes
from vlbeit_jax.prepare.formats.base import Options, Plan, a_unit_each
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.prepare.planning import Source
from vlbeit_jax.prepare.text_tokenizer import train_text_tokenizer
from vlbeit_jax.types import Kind

WORDS = (
    "a red blue green small large round old dog cat house tree "
    "boat river sees near under with plays sleeps runs behind"
).split()
OTHER_SCRIPTS = (
    "Öltanker fährt über die Ostsee, déjà vu à Nîmes.",
    "東京は日本の首都です。",
    "Пароход плывёт.",
    "We like 🍕 and 🚀!",
)


def picture(seed: int, height: int = 20, width: int = 24, channels: int = 3) -> np.ndarray:
    """A smooth random picture, so that lossy formats come close."""
    coarse = np.random.default_rng(seed).integers(30, 226, (3, 3, channels), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def encoded(pixels: np.ndarray, file_format: str = "PNG", mode: str = "RGB", **options) -> bytes:
    """An image file of some colour mode."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


def png_header(height: int, width: int) -> bytes:
    """A PNG that states a size and holds next to nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def sentence(seed: int, words: int = 8) -> str:
    """Some words, different for every seed."""
    return " ".join(np.random.default_rng(seed).choice(WORDS, words)) + f" {seed}"


def write_tar(
    path: pathlib.Path, members: Iterable[tuple[str, bytes]], mode: str = "w"
) -> pathlib.Path:
    """A tar of named contents."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def pair_members(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    """Pairs as img2dataset names them, each picture and caption another."""
    numbers = range(first, first + count)
    return [
        member
        for i in numbers
        for member in (
            (f"{i:05d}.png", encoded(picture(i, 16, 18))),
            (f"{i:05d}.txt", sentence(i, 3 + i % 6).encode()),
        )
    ]


def build(out: pathlib.Path, kind: Kind, inputs: Iterable[pathlib.Path], **changed) -> dict:
    """``build_set`` with the command's defaults.

    Args:
      out: the folder to make.
      kind: what records hold.
      inputs: paths.
      changed: fields of ``Source``, ``Options`` and ``Wishes`` by name, and ``part_range`` and
        ``engine``.
    """
    part_range, engine = changed.pop("part_range", None), changed.pop("engine", None)
    wishes = Wishes(**_taken(changed, Wishes))
    options = Options(**_taken(changed, Options))
    source_format = changed.pop("source_format", "text" if kind is Kind.TEXTS else "webdataset")
    places = [str(path) for path in inputs]
    source = Source(kind, source_format, places, options=options, **changed)
    return build_set(out, source, wishes, part_range, engine)


def _taken(changed: dict[str, Any], form: type) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(form) if field.name in changed]
    return {name: changed.pop(name) for name in names}


def in_memory(items: Iterable[Item]) -> Any:
    """A format whose items are these, whatever the input is."""
    return types.SimpleNamespace(
        KINDS=frozenset(Kind),
        sniff=lambda found: False,
        plan=lambda paths, options: Plan(a_unit_each(paths)),
        read=lambda unit, options: iter(items),
    )


def build_pairs(
    folder: pathlib.Path, name: str, count: int, first: int = 0, **changed
) -> pathlib.Path:
    """A prepared set of pairs."""
    build(
        folder / name,
        Kind.PAIRS,
        [write_tar(folder / f"{name}.tar", pair_members(count, first))],
        **changed,
    )
    return folder / name


def build_texts(
    folder: pathlib.Path, name: str, documents: Iterable[str], **changed
) -> pathlib.Path:
    """A prepared set of texts."""
    (folder / f"{name}.txt").write_text("".join(f"{document}\n" for document in documents))
    build(folder / name, Kind.TEXTS, [folder / f"{name}.txt"], **changed)
    return folder / name


def documents(count: int) -> list[str]:
    """Documents of one to twenty sentences, and some in other scripts."""
    return [
        ". ".join(sentence(100 * i + j) for j in range(1 + i * 7 % 20)) for i in range(count)
    ] + list(OTHER_SCRIPTS)


def train_tokenizer(
    folder: pathlib.Path, name: str, places: Iterable[pathlib.Path], vocabulary: int = 380
) -> TextTokenizer:
    """A tiny text tokenizer."""
    train_text_tokenizer(folder / name, [str(place) for place in places], vocabulary, 1_000_000)
    return TextTokenizer(folder / name)


def records(place, *splits):
    """All records of a prepared set."""
    found = open_set(str(place))
    splits = splits or [split for split in (TRAIN, VALIDATION) if found.count(split)]
    return [found.records(split)[i] for split in splits for i in range(found.count(split))]


def pair(name: str, number: int, caption: str, file_format: str = "PNG") -> list[tuple[str, bytes]]:
    """Members of a tar: a picture by number and its caption."""
    suffix = {"PNG": "png", "JPEG": "jpg"}[file_format]
    return [
        (f"{name}.{suffix}", encoded(picture(number, 40, 48), file_format)),
        (f"{name}.txt", caption.encode()),
    ]


def keys(folder: pathlib.Path, what: str, split: str) -> set[int]:
    """The keys of a set's pictures or texts in a part."""
    return set(open_set(str(folder)).keys(what, split)[0].tolist())
