"""HDF5 as M3AE and others store pictures: data sets ``jpg`` and ``caption`` of equal length.

Names may have a prefix: ``train_jpg``, ``train_caption``. Each element is an encoded file.
"""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.copies import openable
from vlbeit_jax.errors import UsageError
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
from vlbeit_jax.prepare.formats.captions import no_words
from vlbeit_jax.prepare.formats.columns import Columns, columns_of, need_columns
from vlbeit_jax.prepare.formats.files import files_below
from vlbeit_jax.prepare.formats.needs import needed
from vlbeit_jax.prepare.formats.words import decoded
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS, Kind.TEXTS, Kind.LABELLED_IMAGES})
MAGIC = b"\x89HDF\r\n\x1a\n"
DAMAGE = (OSError, RuntimeError, KeyError)  # What h5py raises of it.
PREFIXES = ("", "train_", "val_", "validation_", "test_")


def sniff(found: Found) -> bool:
    """Returns whether a file begins as HDF5."""
    return any(file.head.startswith(MAGIC) for file in found.files())


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Divides the elements of each file's data sets.

    Raises:
      BadInput: a file is damaged, or its data sets have different lengths.
      UsageError: h5py is missing, or names are unknown, or pictures are not encoded.
    """
    result = Plan([], items=0)
    for whole in a_unit_each(files_below(paths, sniff, result.skipped)):
        with left_out_if_bad(result, options):
            path = input_path(whole.path)
            with _opened(path) as file:
                for columns, length in _tables(file, path, options):
                    result.items = (result.items or 0) + length
                    for start in range(0, length, UNIT_PICTURES):
                        stop = min(start + UNIT_PICTURES, length)
                        extra = {"columns": list(columns)}
                        result.units.append(Unit(whole.path, whole.source, start, stop, extra))
    return result


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Any]:
    h5py = needed("h5py", f"{path} is an HDF5 file")
    with contextlib.ExitStack() as opened:
        with _names_damage(path):
            file = opened.enter_context(h5py.File(openable(path), "r"))
        yield file


@contextlib.contextmanager
def _names_damage(path: pathlib.Path) -> Iterator[None]:
    """Says that a file is damaged; for calls of h5py alone, so that no other error looks so."""
    try:
        yield
    except DAMAGE as error:
        raise BadInput(path, f"cannot be read as HDF5 ({error})") from error


def _tables(
    file: Mapping[str, Any], path: pathlib.Path, options: Options
) -> list[tuple[Columns, int]]:
    """Returns the data sets that belong together, and how long they are."""
    with _names_damage(path):
        # A name that is not UTF-8 comes as bytes.
        members = {name: file[name] for name in file if isinstance(name, str)}
        shapes = {name: each.shape for name, each in members.items() if hasattr(each, "shape")}
    names = list(shapes)
    if options.image_column or options.caption_column:
        candidates = [columns_of(names, options).for_kind(options.kind)]
    else:
        candidates = []
        for prefix in PREFIXES:
            own = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
            columns = columns_of(own, options).for_kind(options.kind)
            if columns.image or columns.document:
                candidates.append(Columns(*(prefix + name if name else "" for name in columns)))
    need_columns(candidates[0] if candidates else Columns(), names, path)
    tables = []
    for columns in candidates:
        given = [name for name in (columns.image, columns.caption, columns.label) if name]
        lengths = {name: shapes[name][0] if shapes[name] else 0 for name in given}
        if max(lengths.values()) > path.stat().st_size:
            raise BadInput(path, f"it is smaller than the data sets that it states: {lengths}")
        if len(set(lengths.values())) > 1:
            raise BadInput(path, f"its data sets have different lengths: {lengths}")
        if columns.image and len(shapes[columns.image]) > 2:
            raise UsageError(
                f"{path}: {columns.image} holds pixels of shape {shapes[columns.image]} and no "
                "picture files; store each element as an encoded PNG or JPEG"
            )
        tables.append((columns, next(iter(lengths.values()))))
    return tables


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item an element.

    Raises:
      BadInput: the file is damaged.
    """
    columns = Columns(*unit.extra["columns"])
    with _opened(input_path(unit.path)) as file:
        for number in range(unit.start, unit.stop):
            yield _item(file, columns, number, unit)


def _item(file: Mapping[str, Any], columns: Columns, number: int, unit: Unit) -> Item:
    with _names_damage(input_path(unit.path)):
        image = file[columns.image][number] if columns.image else None
        words_of = file[columns.caption][number] if columns.caption else []
        value: Any = file[columns.label][number] if columns.label else ""
    image = None if image is None else _bytes(image)
    words = [decoded(each) for each in _texts(words_of)]
    captions = tuple(text.strip() for text, _ in words if text and text.strip())
    label: str | int = ""
    if columns.label:
        label = int(value) if np.issubdtype(np.asarray(value).dtype, np.integer) else str(value)
    name = columns.image or columns.document
    return Item(
        f"{unit.stem}/{name}/{number:08d}",
        image,
        captions,
        text="" if image else "\n".join(captions),
        source=unit.source,
        label=label,
        repairs=tuple(repair for _, repair in words if repair),
        no_words=no_words(captions, words),
    )


def _texts(value: Any) -> list[bytes]:
    """Returns the texts of an element, which may have several."""
    many = isinstance(value, np.ndarray) and value.dtype != np.uint8
    return [_bytes(each) for each in (value if many or isinstance(value, list) else [value])]


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return bytes(value) if isinstance(value, bytes) else np.asarray(value).tobytes()
