"""Tables of pictures and captions, separated by tabs; a quote mark is a part of the text."""

import pathlib
from collections.abc import Iterator, Sequence

from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit, a_unit_each, left_out_if_bad
from vlbeit_jax.prepare.formats.files import files_below
from vlbeit_jax.prepare.formats.index import read_rows
from vlbeit_jax.prepare.formats.tables import plain_cells, plan_table, rows_of, sniff_cells
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS})
CELLS = plain_cells("\t")


def sniff(found: Found) -> bool:
    """Returns whether a file is a table with pictures or links."""
    return any(sniff_cells(file.head, "\t") for file in found.files())


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Finds the rows of each picture.

    Raises:
      UsageError: columns are unknown, or the table is a list of links.
    """
    result = Plan([])
    for whole in a_unit_each(files_below(paths, sniff, result.skipped)):
        with left_out_if_bad(result, options):
            plan_table(whole, CELLS, "tsv", options, result)
    return result


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a picture, with the captions of all its rows."""
    return read_rows(unit, options, rows_of(CELLS, unit.extra))
