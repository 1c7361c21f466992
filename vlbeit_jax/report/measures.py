"""Measures of the records of a prepared set: sizes, lengths of texts, scripts, repetitions."""

import collections
import dataclasses
import functools
import io
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.examples.statements import IMAGES
from vlbeit_jax.data.identity import PICTURES, TEXTS, TRAIN
from vlbeit_jax.data.records import EvenRecords
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.shapes import Int
from vlbeit_jax.types import Special

OTHER = "other"


@dataclasses.dataclass
class Measures:
    """What was found in some training records of a set, evenly spaced.

    Attributes:
      looked_at: records.
      widths: of pictures, pixels.
      heights: of pictures, pixels.
      lengths: word pieces of each text, CLS and SEP included; empty without a tokenizer.
      pieces: word pieces of all texts; 0 without a tokenizer.
      unknown: those of them that the tokenizer does not know.
      texts: how often each text occurs.
      scripts: letters by script.
    """

    looked_at: int
    widths: Int[np.ndarray, " A"]
    heights: Int[np.ndarray, " A"]
    lengths: Int[np.ndarray, " T"]
    pieces: int
    unknown: int
    texts: collections.Counter[str]
    scripts: collections.Counter[str]


def measure(prepared: PreparedSet, tokenizer: TextTokenizer | None, count: int) -> Measures:
    """Returns the measures of a set.

    Args:
      prepared: the set.
      tokenizer: of its texts; None: they are not read.
      count: records to look at.
    """
    sizes: list[tuple[int, int]] = []
    lengths: list[int] = []
    unknown = pieces = 0
    texts: collections.Counter[str] = collections.Counter()
    scripts: collections.Counter[str] = collections.Counter()
    records = EvenRecords(prepared.records(TRAIN), count)
    for index in range(len(records)):
        record = records[index]
        sizes += [size_of(record[name]) for name in IMAGES if name in record]
        if "tokens" in record:
            lengths.append(int((record["tokens"] != Special.PAD).sum()))
        for text in texts_of(record):
            if tokenizer is None:
                continue
            texts[text] += 1
            scripts.update(script_of(letter) for letter in text if letter.isalpha())
            numbers = tokenizer.encode(text)
            lengths.append(len(numbers) + 2)
            unknown += numbers.count(Special.UNKNOWN)
            pieces += len(numbers)
    sides = np.array(sizes, int).reshape(-1, 2)
    return Measures(
        looked_at=len(records),
        widths=sides[:, 0],
        heights=sides[:, 1],
        lengths=np.array(lengths, int),
        pieces=pieces,
        unknown=unknown,
        texts=texts,
        scripts=scripts,
    )


def size_of(encoded: bytes) -> tuple[int, int]:
    """Returns width and height of a picture from its header, without decoding it."""
    with Image.open(io.BytesIO(encoded)) as image:
        width, height = image.size
        # From 5 on, the EXIF orientation turns the picture by a quarter.
        return (height, width) if image.getexif().get(0x0112, 1) >= 5 else (width, height)


def texts_of(record: Mapping[str, Any]) -> Iterator[str]:
    """Yields the texts of a record that the network reads."""
    if "captions" in record:
        yield from (as_text(caption) for caption in record["captions"])
    elif "text" in record:
        yield as_text(record["text"])


@functools.lru_cache(maxsize=2**16)
def script_of(letter: str) -> str:
    """Returns the script of a letter: the first word of its name in Unicode."""
    return unicodedata.name(letter, OTHER).split()[0].split("-")[0].title()


def repeated(prepared: PreparedSet) -> dict[str, tuple[int, int]]:
    """Returns, of a set's training pictures and texts, how many there are once, and records.

    It follows from the keys that were written with the set; no record is read.
    """
    counts, records = prepared.meta["keys"].get(TRAIN, {}), prepared.count(TRAIN)
    return {what: (counts[what], records) for what in (PICTURES, TEXTS) if what in counts}
