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
    """

    key: str
    image: bytes | None = None
    captions: tuple[str, ...] = ()
    text: str = ""


def source_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """What keys of items start with: the paths below their common folder, without suffix, so that no two are equal."""
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return [path.absolute().relative_to(common).with_suffix("").as_posix() for path in paths]
