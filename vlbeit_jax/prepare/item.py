"""What a format yields: the same few fields wherever they come from."""

import dataclasses
import os.path
import pathlib
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Item:
    """One example as it was found.

    Attributes:
      key: identifies it within its source.
      image: encoded bytes, unread; None if there is no image.
      captions: of the image.
      text: a document, a question about the image, or a statement about the images.
      source: path of its file (of its picture, if it has one): within the archive, or below the
        inputs' common folder.
      label: of a class: its name, or its number in the file of ``--classes``.
      answers: to the question, one from each person who was asked.
      images: as ``image``, of the two images that a statement is about; empty if there are none.
      mask: encoded bytes of a picture with the number of each pixel's class; None if there is none.
      truth: whether the statement is true; None if it is not known.
      group: items of one group are in one split; empty: the picture, or else the text, decides.
      split: that the source puts it in; empty: a hash decides.
      place: file and line, for messages, of data that the user annotated. The user can mend
        them, so an item with a place that cannot be used is an error, and is not dropped.
      fault: why it cannot be used, if the format knows.
      no_words: why it has neither captions nor a text, if the format knows.
      skip: why it is no example at all, such as "hidden"; counted apart from dropped items.
      repairs: what was mended in its texts, such as "lone_surrogate"; counted, and used.
    """

    key: str
    image: bytes | None = None
    captions: tuple[str, ...] = ()
    text: str = ""
    source: str = ""
    label: str | int = ""
    answers: tuple[str, ...] = ()
    images: tuple[bytes, ...] = ()
    mask: bytes | None = None
    truth: bool | None = None
    group: str = ""
    split: str = ""
    place: str = ""
    fault: str = ""
    no_words: str = ""
    skip: str = ""
    repairs: tuple[str, ...] = ()


def source_paths(paths: Sequence[pathlib.Path]) -> list[pathlib.PurePath]:
    """Returns the inputs relative to their common folder, so that no two are equal.

    Without suffix, they begin the keys of their items.
    """
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return [path.absolute().relative_to(common) for path in paths]


def filled_lines(paths: Sequence[pathlib.Path]) -> int:
    """Returns the number of lines that are not blank: the items of formats with one item a line."""
    filled = 0
    for path in paths:
        with path.open("rb") as lines:
            filled += sum(not line.isspace() for line in lines)
    return filled
