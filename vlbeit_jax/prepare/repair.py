"""Characters that no text should hold: they are taken out of an item's texts, and counted."""

import collections
import dataclasses
import re

from vlbeit_jax.prepare.item import Item

# Halves of surrogate pairs: JSON may hold them alone, and names of files that are not UTF-8 do.
SURROGATES = re.compile("[\ud800-\udfff]")
# Control characters that are not white space, and marks that only say in which direction to write.
MARKS = re.compile(
    "[\u0000-\u0008\u000e-\u001f\u007f-\u0084\u0086-\u009f\u061c\u200e\u200f\u202a-\u202e"
    "\u2066-\u2069]"
)
NAMES, TEXTS = ("key", "source", "group"), ("text", "captions", "answers")
LONE_SURROGATE, MARK = "lone_surrogate", "control_or_direction_mark"


def repaired(item: Item, counts: collections.Counter[str]) -> Item:
    """Returns an item whose texts can be stored.

    Two halves of a surrogate pair become their character, and a lone half becomes U+FFFD. Control
    characters and direction marks are taken out of texts and captions. Annotated data keep them:
    whoever made a benchmark may have meant them.

    Args:
      item: as it was found.
      counts: gets the number of texts that were changed, by reason.
    """
    changed = {}
    for name in (*NAMES, *TEXTS):
        value = getattr(item, name)
        texts = (value,) if isinstance(value, str) else value
        clean = tuple(_clean(each, name in TEXTS and not item.place, counts) for each in texts)
        if clean != texts:
            changed[name] = (
                clean[0] if isinstance(value, str) else tuple(each for each in clean if each)
            )
    return dataclasses.replace(item, **changed) if changed else item


def _clean(text: str, without_marks: bool, counts: collections.Counter[str]) -> str:
    if SURROGATES.search(text):
        counts[LONE_SURROGATE] += 1
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if without_marks and MARKS.search(text):
        counts[MARK] += 1
        text = MARKS.sub("", text).strip()
    return text
