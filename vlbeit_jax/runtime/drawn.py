"""Writes predictions that are pictures into a folder."""

import contextlib
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vlbeit_jax.folders import published
from vlbeit_jax.places import relative
from vlbeit_jax.tasks.drawing import DrawsPictures

LONGEST_NAME = 80  # Characters of an id in the name of a file.
# From records to a prediction each, with the paths of its pictures.
Predict = Callable[[Sequence[Mapping[str, Any]]], Iterator[dict[str, Any]]]


@contextlib.contextmanager
def drawn(
    predict: Callable[..., Iterator[dict[str, Any]]],
    draws: DrawsPictures,
    folder: pathlib.Path,
    beside: pathlib.Path,
) -> Iterator[Predict]:
    """Returns ``predict`` with pictures in files, whose paths take the place of the arrays.

    The folder appears when all of it is written. A file is called by the number of its record, its
    id, and what it is.

    Args:
      predict: from records to predictions.
      draws: makes the pictures of a prediction.
      folder: to make.
      beside: folder that the paths are relative to.

    Raises:
      UsageError: the folder exists already.
    """
    with published(folder) as unfinished:
        shown, number = relative(folder, beside), 0

        def with_pictures(records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
            nonlocal number
            for record, prediction in zip(records, predict(records), strict=True):
                stem = re.sub(r"[^A-Za-z0-9._-]+", "_", record["id"])[:LONGEST_NAME]
                paths = {}
                for name, encoded in draws.pictures(record, prediction).items():
                    file = f"{number:06d}_{stem}_{name}.png"
                    (unfinished / file).write_bytes(encoded)
                    paths[name] = f"{shown}/{file}"
                number += 1
                yield prediction | paths

        yield with_pictures
