"""Visual Genome: ``region_descriptions.json``, with the phrases of each picture's regions.

Pictures are in ``VG_100K/`` and ``VG_100K_2/``, beside the file or where ``--images`` says.
"""

import pathlib
from collections.abc import Iterator, Sequence

from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import (
    BadInput,
    Found,
    Options,
    Plan,
    Unit,
    a_unit_each,
    left_out_if_bad,
)
from vlbeit_jax.prepare.formats.files import require_files
from vlbeit_jax.prepare.formats.index import Row, plan_entries, read_entries
from vlbeit_jax.prepare.formats.json_values import elements
from vlbeit_jax.prepare.formats.words import strings
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS})
FOLDERS = ("VG_100K/", "VG_100K_2/", "images/", "")


def sniff(found: Found) -> bool:
    """Returns whether a file is an array of pictures with regions that have phrases."""
    head = found.head.lstrip()
    return head.startswith(b"[") and all(
        name in head for name in (b'"regions"', b'"phrase"', b'"image_id"')
    )


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Reads the files.

    Raises:
      BadInput: a file is damaged or has another layout.
    """
    require_files(paths)
    result = Plan([])
    for whole in a_unit_each(paths):
        with left_out_if_bad(result, options):
            result.units += plan_entries(whole, _rows(input_path(whole.path)))
    return result


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a picture, with the phrases of all its regions."""
    return read_entries(unit, options)


def _rows(path: pathlib.Path) -> Iterator[Row]:
    try:
        for each in elements(path):
            regions = each["regions"]
            number = each.get("id", each.get("image_id"))
            if number is None:
                number = regions[0]["image_id"]
            images = tuple(f"{folder}{number}.jpg" for folder in FOLDERS)
            yield Row(images, strings([region["phrase"] for region in regions]), str(number))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise BadInput(
            path, f"is no file of region descriptions: an entry lacks {error}"
        ) from error
