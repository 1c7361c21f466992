"""JSON that other programs wrote: an object a line, or an array; of pictures or of documents.

Known names of fields are in ``columns.py``. A line that is not JSON is counted. The strict format
for annotated data is ``jsonl.py``.
"""

import html
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit, a_unit_each, left_out_if_bad
from vlbeit_jax.prepare.formats.columns import Columns, columns_of, need_columns
from vlbeit_jax.prepare.formats.files import files_below
from vlbeit_jax.prepare.formats.index import (
    BAD_LINE,
    Row,
    plan_entries,
    plan_rows,
    read_entries,
    read_rows,
)
from vlbeit_jax.prepare.formats.json_values import elements, first_object
from vlbeit_jax.prepare.formats.lines import cut_at_lines, lines_of
from vlbeit_jax.prepare.formats.links import is_link, links_only
from vlbeit_jax.prepare.formats.packed import head_of
from vlbeit_jax.prepare.formats.pictures import same_picture
from vlbeit_jax.prepare.formats.words import strings
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS, Kind.TEXTS})
# The list of SBU Captions is one object of columns, beginning with this one.
SBU, SBU_BEGINS = b'"image_urls"', 200
WIKIEXTRACTOR = {"id", "url", "title", "text"}  # Its texts keep entities such as &amp;.


def sniff(found: Found) -> bool:
    """Returns whether a file begins with an object that has a picture or a text."""
    return any(_begins(file.head) for file in found.files())


def _begins(head: bytes) -> bool:
    if SBU in head[:SBU_BEGINS]:
        return True
    first = first_object(head)
    if not first:
        return False
    columns = columns_of(list(first), Options())
    return bool(columns.document or columns.link or (columns.image and columns.caption))


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Finds the rows of each picture, and divides documents at ends of lines.

    Raises:
      UsageError: fields are unknown, or the file is a list of links.
    """
    result = Plan([])
    for whole in a_unit_each(files_below(paths, sniff, result.skipped)):
        with left_out_if_bad(result, options):
            path = input_path(whole.path)
            head = head_of(path)
            if SBU in head[:SBU_BEGINS]:
                raise links_only(path, "json", "image_urls", "captions")
            first = first_object(head) or {}
            if not first and next(lines_of(path), None) is None:
                continue  # It is empty; a damaged one raises an error.
            names = list(first)
            columns = columns_of(names, options).for_kind(options.kind)
            need_columns(columns, names, path)
            is_array = head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
            if (not columns.image and columns.link) or is_link(first.get(columns.image)):
                form = "json" if is_array else "jsonl"
                raise links_only(path, form, columns.link or columns.image, columns.caption)
            extra = {"columns": list(columns), "array": is_array}
            if is_array:
                to_row = row_maker(columns, set(first))
                result.units += plan_entries(whole, map(to_row, elements(path)), **extra)
            elif columns.image:
                result.units += plan_rows(whole, rows_by(columns, set(first)), **extra)
            else:
                whole = Unit(whole.path, whole.source, extra={**extra, "names": sorted(first)})
                result.units += cut_at_lines(whole)
    return result


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a picture or document; a line that is not JSON has a fault."""
    columns = Columns(*unit.extra["columns"])
    if unit.extra["array"]:
        yield from read_entries(unit, options)
    elif columns.image:
        yield from read_rows(unit, options, rows_by(columns, set()))
    else:
        rows = rows_by(columns, set(unit.extra["names"]))
        for place, row in rows(input_path(unit.path), unit.start, unit.stop):
            key = f"{unit.stem}/{place:012d}"
            yield Item(key, text=row.text, source=unit.source, fault=row.fault)


def rows_by(columns: Columns, names: set[str]) -> Callable[..., Iterator[tuple[int, Row]]]:
    """Returns the reader of rows; see ``row_maker``."""
    to_row = row_maker(columns, names)

    def rows(path: pathlib.Path, start: int, stop: int) -> Iterator[tuple[int, Row]]:
        for place, line in lines_of(path, start, stop):
            if line.strip():
                try:
                    values = json.loads(line)
                except (ValueError, RecursionError):
                    yield place, Row(fault=BAD_LINE)
                else:
                    yield place, to_row(values)

    return rows


def row_maker(columns: Columns, names: set[str]) -> Callable[[Any], Row]:
    """Returns the function from an object to its row.

    Args:
      columns: what its fields mean.
      names: of the fields of the first object, by which WikiExtractor's output is recognised.
    """
    escaped = names >= WIKIEXTRACTOR and "revid" in names

    def to_row(values: Any) -> Row:
        if not isinstance(values, Mapping):
            return Row(fault=BAD_LINE)
        if not columns.image:
            texts = strings(values.get(columns.document))
            text = "\n".join(texts)
            return Row(text=html.unescape(text) if escaped else text)
        image = values.get(columns.image)
        if not isinstance(image, str) or not image:
            return Row(captions=strings(values.get(columns.caption)))
        picture = values.get(columns.picture, same_picture(image))
        return Row((image,), strings(values.get(columns.caption)), str(picture))

    return to_row
