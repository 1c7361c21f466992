"""Arrow files: VLMo's tables, and what ``save_to_disk`` of Hugging Face datasets writes.

VLMo writes the file format, which can be divided. Hugging Face writes streams, one unit a file.
"""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from vlbeit_jax.copies import openable
from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import (
    UNIT_PICTURES,
    BadInput,
    Found,
    Options,
    Plan,
    Unit,
    a_unit_each,
    left_out_if_bad,
)
from vlbeit_jax.prepare.formats.columnar import columns_in, items_of
from vlbeit_jax.prepare.formats.columns import Columns
from vlbeit_jax.prepare.formats.files import OTHER, files_below
from vlbeit_jax.prepare.formats.index import picture_folder
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS, Kind.TEXTS, Kind.LABELLED_IMAGES, Kind.LABELLED_TEXTS})
FILE, STREAM = b"ARROW1", b"\xff\xff\xff\xff"
ROWS = 64  # In memory at a time.


def sniff(found: Found) -> bool:
    """Returns whether a file begins as an Arrow file or stream."""
    return any(file.head.startswith((FILE, STREAM)) for file in found.files())


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Divides files between record batches.

    Raises:
      BadInput: a file is damaged.
      UsageError: columns are unknown.
    """
    result = Plan([])
    files = files_below(paths, sniff, result.skipped)
    for whole in a_unit_each([file for file in files if _is_data(file)]):
        with left_out_if_bad(result, options):
            path = input_path(whole.path)
            with _source(path) as source:
                reader = _reader(source, path)
                extra = {"columns": list(columns_in(reader.schema, path, options))}
                result.units += _units(whole, reader, extra)
    if left := sum(not _is_data(file) for file in files):
        result.skipped[OTHER] += left
    return result


def _is_data(path: pathlib.Path) -> bool:
    """Returns whether a file of a saved set has rows of it, and is no cache of a computation."""
    try:
        stated = json.loads((path.parent / "state.json").read_bytes())["_data_files"]
        return path.name in [each["filename"] for each in stated]
    except (OSError, ValueError, KeyError, TypeError):
        return not path.name.startswith("cache-")


def _source(path: pathlib.Path) -> Any:
    opened = openable(path)
    return pa.memory_map(str(path)) if opened is path else pa.PythonFile(opened, "r")


def _reader(source: Any, path: pathlib.Path) -> Any:
    try:
        if source.read(len(FILE)) == FILE:
            return pa.ipc.open_file(source)
        source.seek(0)
        return pa.ipc.open_stream(source)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(path, f"cannot be read as Arrow ({error})") from error


def _units(whole: Unit, reader: Any, extra: dict[str, Any]) -> list[Unit]:
    count = getattr(reader, "num_record_batches", 0)
    if not count:
        return [Unit(whole.path, whole.source, extra={**extra, "number": 0})]
    units, start, first, rows = [], 0, 0, 0
    for batch in range(count):
        try:
            rows += reader.get_batch(batch).num_rows
        except (pa.ArrowException, OSError) as error:
            raise BadInput(whole.path, f"batch {batch} cannot be read ({error})") from error
        if rows >= UNIT_PICTURES or batch + 1 == count:
            more = {**extra, "number": first}
            units.append(Unit(whole.path, whole.source, start, batch + 1, more))
            start, first, rows = batch + 1, first + rows, 0
    return units


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a row.

    Raises:
      BadInput: the file is damaged.
    """
    path, columns = input_path(unit.path), Columns(*unit.extra["columns"])
    folder, number = picture_folder(unit, options), unit.extra["number"]
    with _source(path) as source:
        batches = _batches(_reader(source, path), unit, path)
        yield from items_of(batches, columns, folder, unit.stem, unit.source, number)


def _batches(reader: Any, unit: Unit, path: pathlib.Path) -> Iterator[pa.RecordBatch]:
    """Yields small batches."""
    try:
        whole = reader if unit.stop < 0 else map(reader.get_batch, range(unit.start, unit.stop))
        for batch in whole:
            # Damage would end the process otherwise.
            batch.validate(full=True)
            for start in range(0, batch.num_rows, ROWS):
                yield batch.slice(start, ROWS)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(path, f"cannot be read to its end ({error})") from error
