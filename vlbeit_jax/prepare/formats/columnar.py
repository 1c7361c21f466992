"""What Parquet and Arrow tables share: which columns are which, and items of their rows."""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from vlbeit_jax.prepare.formats.base import BadInput, Options
from vlbeit_jax.prepare.formats.columns import Columns, columns_of, need_columns
from vlbeit_jax.prepare.formats.links import links_only
from vlbeit_jax.prepare.formats.pictures import Folder
from vlbeit_jax.prepare.formats.words import strings
from vlbeit_jax.prepare.item import Item

STATUS, SUCCESS = "status", "success"  # Of a link, in img2dataset's tables.


def columns_in(schema: pa.Schema, path: pathlib.Path, options: Options) -> Columns:
    """Returns which columns hold pictures, captions or documents, and labels.

    A column that Hugging Face's metadata or its type declares as pictures comes first.

    Raises:
      UsageError: there is none of pictures or of texts, or the table is a list of links.
    """
    try:
        given = schema.names
    except UnicodeDecodeError as error:
        raise BadInput(path, f"a name of a column is not UTF-8 ({error})") from error
    declared = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    ]
    usable = [field.name for field in schema if _holds_text(field.type) or _holds_bytes(field.type)]
    names = [*declared, *(name for name in usable if name not in declared)]
    columns = columns_of(names, options)
    if declared and not options.image_column:
        columns = columns._replace(
            image=next((n for n in declared if n == columns.image), declared[0])
        )
    labels = [field.name for field in schema if field.name in ("label", "labels", "fine_label")]
    columns = columns._replace(label=labels[0] if labels else columns.label).for_kind(options.kind)
    if not columns.image and columns.link:
        raise links_only(path, "parquet", columns.link, columns.caption)
    need_columns(columns, given, path)
    return columns


def _holds_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_text(kind.value_type) or pa.types.is_struct(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def used(columns: Columns, schema: pa.Schema) -> list[str]:
    """Returns the columns to read."""
    wanted = {columns.image, columns.caption, columns.document, columns.label, STATUS}
    return [name for name in schema.names if name in wanted]


def names_of_labels(schema: pa.Schema, column: str) -> Sequence[str]:
    """Returns the names of a column of labels that Hugging Face's metadata has; none without."""
    try:
        described = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(described["info"]["features"][column]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def items_of(
    batches: Iterator[pa.RecordBatch],
    columns: Columns,
    folder: Folder,
    stem: str,
    source: str,
    number: int,
) -> Iterator[Item]:
    """Yields the items of batches of rows; dead links are skipped; the plan counts them.

    Args:
      batches: of a table.
      columns: which are which.
      folder: of pictures of which the table has the path alone.
      stem: begins the keys.
      source: path of the table.
      number: of the first row.
    """
    labels: Sequence[str] | None = None
    for batch in batches:
        if labels is None:
            labels = names_of_labels(batch.schema, columns.label)
        for row in batch.to_pylist():
            if not (row.get(columns.image) is None and row.get(STATUS, SUCCESS) != SUCCESS):
                yield _item(row, columns, folder, f"{stem}/{number:08d}", source, labels)
            number += 1


def _item(
    row: Mapping[str, Any],
    columns: Columns,
    folder: Folder,
    key: str,
    source: str,
    labels: Sequence[str],
) -> Item:
    image, fault, name = _image(row.get(columns.image), folder)
    captions = strings(row.get(columns.caption))
    text = "" if columns.image and image else "\n".join(strings(row.get(columns.document)))
    label = row.get(columns.label) if columns.label else ""
    if isinstance(label, int) and 0 <= label < len(labels):
        label = labels[label]
    label = label if isinstance(label, (int, str)) else ""
    place = f"{source}/{name}" if name else source
    return Item(key, image, captions, text=text, source=place, label=label, fault=fault)


def _image(value: Any, folder: Folder) -> tuple[bytes | None, str, str]:
    """Returns a picture, why it cannot be read, and its name: of bytes, a path or a struct."""
    if isinstance(value, Mapping):
        name = str(value.get("path") or "")
        if value.get("bytes"):
            return value["bytes"], "", name
        value = name
    if isinstance(value, bytes):
        return value, "", ""
    if isinstance(value, str) and value not in ("", "None"):  # VLMo's text sets state None.
        image, fault = folder.read(value)
        return image, fault, value
    return None, "", ""
