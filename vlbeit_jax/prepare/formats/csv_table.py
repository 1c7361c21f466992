"""CSV tables of pictures and captions, with commas, semicolons or bars; cells may be quoted.

A header is recognised by its names (``columns.py``). Without one, the column of pictures is the one
with names of picture files.
"""

import pathlib
from collections.abc import Iterator, Sequence

from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit, a_unit_each, left_out_if_bad
from vlbeit_jax.prepare.formats.files import files_below
from vlbeit_jax.prepare.formats.index import read_rows
from vlbeit_jax.prepare.formats.packed import head_of
from vlbeit_jax.prepare.formats.tables import plan_table, quoted_cells, rows_of, sniff_cells
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS})
DELIMITERS = (",", ";", "|")


def sniff(found: Found) -> bool:
    """Returns whether a file is a table with pictures or links."""
    return any(
        sniff_cells(file.head, _delimiter(file.head)) and not sniff_cells(file.head, "\t")
        for file in found.files()
    )


def _delimiter(head: bytes) -> str:
    first = head.partition(b"\n")[0]
    return max(DELIMITERS, key=lambda each: first.count(each.encode()))


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Finds the rows of each picture.

    Raises:
      UsageError: columns are unknown, or the table is a list of links.
    """
    result = Plan([])
    for whole in a_unit_each(files_below(paths, sniff, result.skipped)):
        with left_out_if_bad(result, options):
            delimiter = _delimiter(head_of(input_path(whole.path)))
            whole = Unit(whole.path, whole.source, extra={"delimiter": delimiter})
            plan_table(whole, quoted_cells(delimiter), "csv", options, result)
    return result


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a picture, with the captions of all its rows."""
    cells = quoted_cells(unit.extra["delimiter"])
    return read_rows(unit, options, rows_of(cells, unit.extra))
