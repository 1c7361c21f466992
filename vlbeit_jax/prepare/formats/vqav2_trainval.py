"""VQA v2, divided as for the figures that are published on test-dev and test-std.

All questions are for training, except those about 1,000 pictures of val2014. A hash of their
numbers chooses these pictures; of less than 10,000 pictures, it chooses a tenth.
"""

import hashlib
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from vlbeit_jax.data.identity import TRAIN, VALIDATION
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit
from vlbeit_jax.prepare.formats.official import divided, only_one
from vlbeit_jax.prepare.formats.vqav2 import KINDS, SUBSETS, pictures_of, read, units_of

__all__ = ["KINDS", "plan", "read", "sniff"]
# VLMo and BEiT-3 keep as many pictures of val2014 for validation when they train on both.
HELD_PICTURES = 1000


def sniff(found: Found) -> bool:
    """Returns False: the files are those of ``vqav2``, and only the user can ask for this split."""
    return False


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Divides the questions: those about the chosen pictures are validation, all others training.

    Raises:
      UsageError: a file is missing or is another one.
    """
    folder = only_one(paths, "vqav2-trainval")
    pictures = pictures_of(folder, VALIDATION)
    held = set(sorted(pictures, key=_hash)[: min(HELD_PICTURES, math.ceil(len(pictures) / 10))])

    def units(whole: Unit, split: str) -> list[Unit]:
        if split == VALIDATION:
            return units_of(whole, VALIDATION, of_pictures=held)
        rest = units_of(whole, VALIDATION, TRAIN, pictures - held)
        return [*rest, *units_of(whole, TRAIN)]

    return divided(folder, options, SUBSETS, units)


def _hash(number: Any) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()
