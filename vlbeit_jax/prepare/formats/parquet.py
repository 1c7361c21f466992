"""Parquet: of img2dataset, of Hugging Face (``to_parquet``), and of documents (Wikipedia's)."""

import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from vlbeit_jax.copies import openable
from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import (
    UNIT_PICTURES,
    UNIT_TEXT,
    BadInput,
    Found,
    Options,
    Plan,
    Unit,
    a_unit_each,
    left_out_if_bad,
)
from vlbeit_jax.prepare.formats.columnar import STATUS, SUCCESS, columns_in, items_of, used
from vlbeit_jax.prepare.formats.columns import Columns
from vlbeit_jax.prepare.formats.files import files_below
from vlbeit_jax.prepare.formats.index import picture_folder
from vlbeit_jax.prepare.formats.sidecars import ALIVE, GIVEN, stats_of
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS, Kind.TEXTS, Kind.LABELLED_IMAGES, Kind.LABELLED_TEXTS})
BATCH = 64  # Rows in memory at a time.


def sniff(found: Found) -> bool:
    """Returns whether a file begins as Parquet."""
    return any(file.head.startswith(b"PAR1") for file in found.files())


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Divides the row groups of each file.

    Raises:
      BadInput: a file is damaged.
      UsageError: columns are unknown, or the table is a list of links.
    """
    result, links, rows = Plan([]), Counter[str](), 0
    for whole in a_unit_each(files_below(paths, sniff, result.skipped)):
        with left_out_if_bad(result, options):
            path = input_path(whole.path)
            with _opened(path) as file:
                columns = columns_in(file.schema_arrow, path, options)
                dead = _links(file, path)
                links.update(dead)
                result.units += _units(whole, file, columns)
                rows += file.metadata.num_rows - dead.get(GIVEN, 0) + dead.get(ALIVE, 0)
    result.links, result.items = dict(links), rows
    return result


def _opened(path: pathlib.Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(openable(path))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadInput(path, f"cannot be read as Parquet ({error})") from error


def _units(whole: Unit, file: pq.ParquetFile, columns: Columns) -> list[Unit]:
    units, first, start, rows, size = [], 0, 0, 0, 0
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        rows, size = rows + group.num_rows, size + group.total_byte_size
        full = rows >= UNIT_PICTURES if columns.image else size >= UNIT_TEXT
        if full or number + 1 == file.num_row_groups:
            extra = {"columns": list(columns), "number": first}
            units.append(Unit(whole.path, whole.source, start, number + 1, extra))
            first, start, rows, size = first + rows, number + 1, 0, 0
    return units


def _links(file: pq.ParquetFile, path: pathlib.Path) -> Counter[str]:
    """Returns how many links img2dataset was given, and what became of them."""
    if STATUS not in file.schema_arrow.names or "url" not in file.schema_arrow.names:
        return Counter()
    if stated := stats_of(path):
        return Counter(stated)
    states = Counter(file.read([STATUS]).column(0).to_pylist())
    total, alive = states.total(), states.pop(SUCCESS, 0)
    return Counter({GIVEN: total, ALIVE: alive}) + Counter({str(k): n for k, n in states.items()})


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a row.

    Raises:
      BadInput: the file is damaged.
    """
    path, columns = input_path(unit.path), Columns(*unit.extra["columns"])
    folder = picture_folder(unit, options)
    with _opened(path) as file:
        names = used(columns, file.schema_arrow)
        groups = list(range(unit.start, unit.stop))
        batches = file.iter_batches(BATCH, row_groups=groups, columns=names)
        number = unit.extra["number"]
        yield from items_of(_sound(batches, path), columns, folder, unit.stem, unit.source, number)


def _sound(batches: Iterator[pa.RecordBatch], path: pathlib.Path) -> Iterator[pa.RecordBatch]:
    try:
        for batch in batches:
            batch.validate(full=True)  # Texts may not be UTF-8.
            yield batch
    except (pa.ArrowException, OSError) as error:
        raise BadInput(path, f"cannot be read to its end ({error})") from error
