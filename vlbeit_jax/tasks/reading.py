"""What the arrays of a training row mean to a person: pictures with masks, words, other facts.

The arrays tell by their names and shapes what they are, so any task's rows can be shown. A task
whose rows hold more than pictures and numbers says so by ``Readable``.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from vlbeit_jax.data.examples.base import ROW_SPECS
from vlbeit_jax.data.pieces import Fate, Piece, fate_of, readable
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.shapes import Int, UInt8
from vlbeit_jax.types import Special

GREY = 127
# Arrays that are shown with a picture or with the words.
_SHOWN = {"masked_patches", "image_targets", "erase", "text"}
_SHOWN |= {"text_masked", "text_targets", "text_weights", *ROW_SPECS}
SEEN = "as seen"  # Title of a picture with hidden parts.
FEW = 8  # Numbers of an array that are listed.
Arrays = Mapping[str, np.ndarray]


def _no_facts(row: Arrays) -> Mapping[str, str]:
    return {}


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a task's rows are read.

    Attributes:
      words: tokenizer of the texts; None without texts.
      grid: patches along a side of a picture; 0 without masks.
      targets: from a batch to pictures of what has to be predicted, by title. It may run a network.
      facts: from a row to what is said of it, by name.
      hidden: arrays that say nothing to a person.
    """

    words: TextTokenizer | None = None
    grid: int = 0
    targets: Callable[[Arrays], Mapping[str, UInt8[np.ndarray, "B h w 3"]]] | None = None
    facts: Callable[[Arrays], Mapping[str, str]] = _no_facts
    hidden: frozenset[str] = frozenset()


@runtime_checkable
class Readable(Protocol):
    """An open task that says how its rows are read."""

    def reading(self, stream: str) -> Reading:
        """Returns how the rows of a stream are read."""
        ...


def reading_of(opened: Any, stream: str) -> Reading:
    """Returns how the rows of a task are read; without its word, as pictures and numbers."""
    return opened.reading(stream) if isinstance(opened, Readable) else Reading()


class Word(NamedTuple):
    """A place of a text.

    Attributes:
      seen: the piece that the network sees.
      truth: the piece to predict; None where nothing is.
    """

    seen: Piece
    truth: Piece | None = None
    fate: Fate | None = None


class Shown(NamedTuple):
    """A row as a person reads it.

    Attributes:
      pictures: by title.
      words: of its text; empty without one.
      facts: by name.
    """

    pictures: dict[str, UInt8[np.ndarray, "h w 3"]]
    words: list[Word]
    facts: dict[str, str]


def read_rows(batch: Arrays, reading: Reading, *, targets: bool = False) -> list[Shown]:
    """Returns the rows of a batch as a person reads them.

    Args:
      batch: arrays whose first axis counts the rows.
      reading: of the task.
      targets: also show what has to be predicted of pictures, which may take a network.
    """
    drawn = reading.targets(batch) if targets and reading.targets else {}
    count = len(next(iter(batch.values())))
    return [
        _shown(
            {name: values[row] for name, values in batch.items()},
            reading,
            {title: pictures[row] for title, pictures in drawn.items()},
        )
        for row in range(count)
    ]


def _shown(row: Arrays, reading: Reading, drawn: Arrays) -> Shown:
    pictures: dict[str, np.ndarray] = {}
    facts = dict(reading.facts(row))
    for name, value in row.items():
        title = name.replace("_", " ")
        if name in _SHOWN or name in reading.hidden:
            continue
        if value.ndim == 3 and value.dtype == np.uint8:
            pictures[title] = value
        elif value.ndim == 2 and np.issubdtype(value.dtype, np.integer):
            pictures[title] = coloured(value)
        elif value.ndim == 0:
            facts[title] = f"{value.item():.6g}"
        else:
            few = ", ".join(f"{each:.4g}" for each in value.ravel()[:FEW].tolist())
            facts[title] = f"{few}{', ...' if value.size > FEW else ''}"
    if "masked_patches" in row and reading.grid and "image" in pictures:
        pictures[SEEN] = hidden_patches(pictures["image"], row["masked_patches"], reading.grid)
        facts["hidden patches"] = _share(len(row["masked_patches"]), reading.grid**2)
    if "erase" in row and row["erase"].any() and "image" in pictures:
        pictures[SEEN] = _erased(pictures["image"], row["erase"])
    words = _words(row, reading.words) if reading.words and "text" in row else []
    if "text_weights" in row:
        facts["hidden pieces"] = _share(int(row["text_weights"].sum()), len(words))
    return Shown(pictures | dict(drawn), words, facts)


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / max(whole, 1):.0%})"


def _words(row: Arrays, tokenizer: TextTokenizer) -> list[Word]:
    """Returns the pieces of a text without CLS, the last SEP and padding."""
    text = row["text"]
    truths = {}
    if "text_weights" in row:
        used = np.flatnonzero(row["text_weights"])
        truths = dict(zip(row["text_masked"][used], row["text_targets"][used], strict=True))
    length = int((text != Special.PAD).sum())
    # Of captions, SEP may be among what has to be predicted.
    last = length - 1 if length - 1 not in truths else length
    words = []
    for place in range(1, last):
        seen = readable(tokenizer, text[place])
        if place in truths:
            truth = int(truths[place])
            words.append(Word(seen, readable(tokenizer, truth), fate_of(int(text[place]), truth)))
        else:
            words.append(Word(seen))
    return words


def hidden_patches(
    image: UInt8[np.ndarray, "h w 3"], masked: Int[np.ndarray, " M"], grid: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture with grey in the place of hidden patches."""
    patch = image.shape[0] // grid
    flags = np.zeros(grid * grid, bool)
    flags[masked] = True
    hidden = flags.reshape(grid, grid).repeat(patch, axis=0).repeat(patch, axis=1)
    return np.where(hidden[..., None], np.uint8(GREY), image)


def _erased(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns a picture with grey in the box that the device fills with noise."""
    top, left, height, width = (int(each) for each in box)
    erased = image.copy()
    erased[top : top + height, left : left + width] = GREY
    return erased


def coloured(numbers: Int[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture in which equal numbers have one colour, and others nearly always others."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    parts = [(mixed >> np.uint64(shift)) % np.uint64(200) for shift in (40, 48, 56)]
    return (np.stack(parts, axis=-1) + 40).astype(np.uint8)
