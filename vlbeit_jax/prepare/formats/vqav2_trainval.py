"""VQA v2, divided as for the figures that are published on test-dev and test-std.

All questions are for training, except those about 1,000 pictures of val2014. A hash of their
numbers chooses these pictures; of less than 10,000 pictures, it chooses a tenth.
"""

import hashlib
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from vlbeit_jax.data.identity import TRAIN, VALIDATION
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit
from vlbeit_jax.prepare.formats.official import in_one_unit, splits_of
from vlbeit_jax.prepare.formats.vqav2 import KINDS, count, pictures_of, read_subset
from vlbeit_jax.prepare.item import Item

__all__ = ["KINDS", "plan", "read", "sniff"]
# VLMo and BEiT-3 keep as many pictures of val2014 for validation when they train on both.
HELD_PICTURES = 1000


def sniff(found: Found) -> bool:
    """Returns False: the files are those of ``vqav2``, and only the user can ask for this split."""
    return False


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Plans one unit, and counts the questions with answers."""
    return in_one_unit(paths, "vqav2-trainval", options, count)


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields the questions about the chosen pictures as validation, then all others as training.

    Raises:
      UsageError: a file is missing or is another one.
    """
    folder, splits = pathlib.Path(unit.path), splits_of(options)
    pictures = pictures_of(folder, VALIDATION)
    held = set(sorted(pictures, key=_hash)[: min(HELD_PICTURES, math.ceil(len(pictures) / 10))])
    if VALIDATION in splits:
        yield from read_subset(folder, VALIDATION, of_pictures=held)
    if TRAIN in splits:
        yield from read_subset(folder, VALIDATION, TRAIN, pictures - held)
        yield from read_subset(folder, TRAIN)


def _hash(number: Any) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()
