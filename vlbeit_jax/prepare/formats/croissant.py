"""Croissant: a JSON-LD file that describes any set, read by MLCommons' own library.

The records of the first record set with pictures or texts are read. Where a field holds the name of
a picture, the file is sought beside the description and in ``images/``.
"""

import io
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
from vlbeit_jax.prepare.formats.columns import Columns, columns_of, need_columns
from vlbeit_jax.prepare.formats.index import picture_folder
from vlbeit_jax.prepare.formats.needs import needed
from vlbeit_jax.prepare.formats.pictures import Folder, is_picture
from vlbeit_jax.prepare.formats.words import decoded
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS, Kind.TEXTS})
FOLDERS = ("", "images/")
LOOKED_AT = 20  # Records, to tell which field names pictures.


def sniff(found: Found) -> bool:
    """Returns whether a file, or one in a folder, says that it conforms to Croissant."""
    return any(b"mlcommons.org/croissant" in file.head for file in found.files())


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Plans one unit a description.

    Raises:
      BadInput: a description is wrong, or what it names is missing.
      UsageError: the library is missing, or fields are unknown.
    """
    files = []
    for path in paths:
        below = sorted(path.glob("*.json")) if path.is_dir() else [path]
        files += [file for file in below if b"mlcommons.org/croissant" in file.read_bytes()]
    result = Plan([])
    for whole in a_unit_each(files):
        with left_out_if_bad(result, options):
            path = input_path(whole.path)
            described = _opened(path)
            for records in (each.uuid for each in described.metadata.record_sets):
                some = list(itertools.islice(_records(described, records, path), LOOKED_AT))
                if not some:
                    continue
                columns = _columns(some, options).for_kind(options.kind)
                if columns.image or columns.document:
                    extra = {"records": records, "columns": list(columns)}
                    result.units.append(Unit(whole.path, whole.source, extra=extra))
                    break
            else:
                need_columns(
                    Columns(), [each.uuid for each in described.metadata.record_sets], path
                )
            licences = ", ".join(described.metadata.license or ())
            if licences:
                result.notes.append(f"{path}: its licence is {licences}; keep it with --licence")
    return result


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a record.

    Raises:
      BadInput: what the description names is missing or wrong.
    """
    path, columns = input_path(unit.path), Columns(*unit.extra["columns"])
    folder = picture_folder(unit, options)
    records = _records(_opened(path), unit.extra["records"], path)
    for number, record in enumerate(records):
        image, fault, name = _image(record.get(columns.image), folder)
        caption, repair = _text(record.get(columns.caption))
        document, _ = _text(record.get(columns.document))
        yield Item(
            f"{unit.stem}/{number:08d}",
            image,
            (caption.strip(),) if caption.strip() else (),
            text="" if columns.image else document,
            source=name or unit.source,
            repairs=(repair,) if repair else (),
            fault=fault,
        )


def _opened(path: pathlib.Path) -> Any:
    library = needed("mlcroissant", f"{path} is a Croissant description")
    try:
        return library.Dataset(jsonld=str(path))
    except (library.ValidationError, OSError, ValueError) as error:
        raise BadInput(path, f"cannot be read as Croissant ({error})") from error


def _records(described: Any, name: str, path: pathlib.Path) -> Iterator[Mapping[str, Any]]:
    library = needed("mlcroissant", f"{path} is a Croissant description")
    try:
        for record in described.records(name):
            yield {field.rpartition("/")[2]: value for field, value in record.items()}
    except (library.GenerationError, OSError, ValueError) as error:
        raise BadInput(path, f"its record set {name} cannot be read ({error})") from error


def _columns(records: Sequence[Mapping[str, Any]], options: Options) -> Columns:
    """Returns the fields by their names, or the one whose values are pictures or name some."""
    names = list(records[0])
    columns = columns_of(names, options)
    named = [name for name in names if all(_is_image(record.get(name)) for record in records)]
    if named and not options.image_column:
        columns = columns._replace(image=named[0])
    return columns


def _is_image(value: Any) -> bool:
    return hasattr(value, "save") or is_picture(_text(value)[0])


def _image(value: Any, folder: Folder) -> tuple[bytes | None, str, str]:
    """Returns a picture, why it cannot be read, and its name. The library has decoded some."""
    if value is None:
        return None, "", ""
    if hasattr(value, "save"):
        file = io.BytesIO()
        value.save(file, "PNG")
        return file.getvalue(), "", ""
    name, _ = _text(value)
    if not is_picture(name) and isinstance(value, bytes):
        return value, "", ""
    image, fault = folder.read(*(f"{place}{name}" for place in FOLDERS))
    return image, fault, name


def _text(value: Any) -> tuple[str, str]:
    if isinstance(value, bytes):
        text, repair = decoded(value)
        return text or "", repair
    return (value, "") if isinstance(value, str) else ("", "")
