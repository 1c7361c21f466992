"""Hugging Face's image folder: pictures with ``metadata.jsonl``, ``.csv`` or ``.parquet``.

Each row has the ``file_name`` of a picture, relative to the metadata.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import vlbeit_jax.prepare.formats.csv_table as csv_table
import vlbeit_jax.prepare.formats.json_records as json_records
import vlbeit_jax.prepare.formats.parquet as parquet
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats.base import Format, Found, Options, Plan, Unit
from vlbeit_jax.prepare.formats.files import require_folders
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

# Pictures alone are read by ``folder``, which needs no row for each of them.
KINDS = frozenset({Kind.PAIRS})
READERS: dict[str, Format] = {
    "metadata.jsonl": json_records,
    "metadata.csv": csv_table,
    "metadata.parquet": parquet,
}


def sniff(found: Found) -> bool:
    """Returns whether there is metadata in a folder or below it."""
    return any(name.rpartition("/")[2] in READERS for name in found.names)


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Plans each metadata file with the format that it has.

    Raises:
      UsageError: a folder has none.
    """
    require_folders(paths)
    result = Plan([])
    for path in paths:
        files = sorted(file for file in path.rglob("metadata.*") if file.name in READERS)
        if not files:
            raise UsageError(f"{path}: there is no metadata.jsonl, .csv or .parquet in it")
        for file in files:
            part = READERS[file.name].plan([file], options)
            source = file.relative_to(path.parent).as_posix()
            result.units += [
                dataclasses.replace(unit, source=source, extra={**unit.extra, "by": file.name})
                for unit in part.units
            ]
    return result


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a picture."""
    return READERS[unit.extra["by"]].read(unit, options)
