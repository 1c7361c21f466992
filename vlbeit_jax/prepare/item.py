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
      text: a document.
      source: path of its file (of its picture, if it has one): within the archive, or below the
        inputs' common folder.
    """

    key: str
    image: bytes | None = None
    captions: tuple[str, ...] = ()
    text: str = ""
    source: str = ""


def source_paths(paths: Sequence[pathlib.Path]) -> list[pathlib.PurePath]:
    """Returns the inputs relative to their common folder, so that no two are equal.

    Without suffix, they begin the keys of their items.
    """
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return [path.absolute().relative_to(common) for path in paths]
