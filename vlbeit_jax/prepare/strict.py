"""Checks of annotated data, whose faults are all named with file and line."""

from collections.abc import Sequence

from vlbeit_jax.data.identity import group_key, picture_key, text_key
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.check import WHICH, Limits
from vlbeit_jax.prepare.item import Item

MOST_NAMED = 20


def explained(reason: str, limits: Limits) -> str:
    """Returns a reason of ``check.Dropped`` as a sentence about a record."""
    sentences = {
        "no_text": "it has no 'text', which is needed here",
        "no_image": "it has no 'image', which is needed here",
        "no_caption": "it has no 'captions', which are needed here",
        "no_label": "it has no 'label', which is needed here",
        "no_answers": "it has no 'answers', which are needed here",
        "no_truth": "it has no 'truth', which is needed here: true or false",
        "no_mask": "it has no 'mask', which is needed here: the path of a picture of class numbers",
        "no_images": "it has no 'images', which are needed here: the paths of two pictures",
        "one_image": "it has one 'image', but two are needed here: 'images' with their paths",
        "empty_file": "its image is an empty file",
        "file_too_large": f"its image's file is larger than --max_bytes={limits.max_bytes}",
        "svg_image": "its image is an SVG drawing; draw it as a PNG first",
        "not_an_image": "its image is not a file of a known image format",
        "undecodable_image": "its image is damaged or incomplete",
        "image_too_large": f"its image has more than --max_pixels={limits.max_pixels}",
        "image_too_small": f"a side of its image is shorter than --min_side={limits.min_side}",
        "image_too_elongated": (
            f"one side of its image is more than --max_aspect={limits.max_aspect:g} times as long "
            "as the other"
        ),
    }
    which, _, rest = reason.partition("_")
    if which in WHICH and rest in sentences:
        return sentences[rest].replace("its image", f"its {which} image")
    return sentences.get(reason, reason)


class UnusableError(UsageError):
    """Records that cannot be used, each of which its maker can mend."""

    def __init__(self, lines: Sequence[str]):
        """Takes a line for each of them."""
        super().__init__("\n  ".join(["records that cannot be used:", *lines]))
        self.lines = list(lines)

    def __reduce__(self) -> tuple[type["UnusableError"], tuple[list[str]]]:
        """Lets a worker process send it."""
        return type(self), (self.lines,)


class Faults:
    """Gathers what is wrong, so that one run of the command names it all."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, item: Item, what: str) -> None:
        """Adds a fault.

        Raises:
          UnusableError: there are many by now.
        """
        self._lines.append(f"{item.place}: record {item.key!r}: {what}")
        if len(self._lines) == MOST_NAMED:
            self._lines.append("there may be more; only the first are listed")
            self.require_none()

    def require_none(self) -> None:
        """Raises an ``UnusableError`` that lists all faults, if there are any."""
        if self._lines:
            raise UnusableError(self._lines)


class Sides:
    """Knows in which split each picture, text and group is, and where that was stated."""

    def __init__(self) -> None:
        self._placed: dict[tuple[str, int], tuple[str, str]] = {}

    def conflict(self, item: Item, split: str, keys: Sequence[tuple[str, int]]) -> str:
        """Returns why an item cannot be in a split; empty if it can.

        Args:
          item: that was found.
          split: that it is to be in.
          keys: of ``keys_of_item``.
        """
        for what, key in keys:
            other, place = self._placed.setdefault((what, key), (split, item.place))
            if other != split:
                return (
                    f"its {what} is also that of {place}, which is in split {other}, but this "
                    f"record is in split {split}; put both into one split or one group, or leave "
                    "one out"
                )
        return ""


def keys_of_item(item: Item, digests: Sequence[str]) -> list[tuple[str, int]]:
    """Returns what must be in one split: the item's group, and its pictures or else its text.

    Args:
      item: that was found.
      digests: SHA-256 of its pictures; empty if it has none.
    """
    own = [("picture", picture_key(digest)) for digest in digests]
    own = own or [("text", text_key(item.text))]
    return [("group", group_key(item.group)), *own] if item.group else own
