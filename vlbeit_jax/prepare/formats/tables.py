"""What tables of text share: columns with or without a header, rows, lists of links."""

import csv
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import Options, Plan, Unit
from vlbeit_jax.prepare.formats.columns import Columns, columns_of
from vlbeit_jax.prepare.formats.index import BAD_LINE, Reader, Row, plan_rows
from vlbeit_jax.prepare.formats.lines import lines_of
from vlbeit_jax.prepare.formats.links import is_link, links_only
from vlbeit_jax.prepare.formats.pictures import is_picture, same_picture
from vlbeit_jax.prepare.formats.words import decoded

# From a file and a range of bytes to rows with the places of their first bytes.
Cells = Callable[[pathlib.Path, int, int], Iterator[tuple[int, list[str]]]]
LOOKED_AT = 50  # Rows, to tell which column is which.


def plain_cells(delimiter: str) -> Cells:
    """Returns the reader of a table without quoting: a quote mark is a part of the text."""

    def cells(path: pathlib.Path, start: int, stop: int) -> Iterator[tuple[int, list[str]]]:
        for place, line in lines_of(path, start, stop):
            if line.strip():
                yield place, _text(line).split(delimiter)

    return cells


def quoted_cells(delimiter: str) -> Cells:
    """Returns the reader of a table in which a cell in quotes may have several lines."""

    def cells(path: pathlib.Path, start: int, stop: int) -> Iterator[tuple[int, list[str]]]:
        places: list[int] = []

        def lines() -> Iterator[str]:
            # A row that begins before the stop may end after it.
            for place, line in lines_of(path, start, -1):
                places.append(place)
                yield line.decode("utf-8", "surrogateescape")

        rows = csv.reader(lines(), delimiter=delimiter, skipinitialspace=True)
        while True:
            places.clear()
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error:
                row = ["too large a cell"]  # It lacks other cells, so it is counted.
            if not places or 0 <= stop <= places[0]:
                return
            if any(map(str.strip, row)):
                yield places[0], [_text(cell.encode("utf-8", "surrogateescape")) for cell in row]

    return cells


def _text(content: bytes) -> str:
    """Returns a cell's text; Latin-1 is recognised, see ``words.decoded``."""
    text, _ = decoded(content.rstrip(b"\r\n"))
    return content.decode("utf-8", "replace") if text is None else text


def sniff_cells(head: bytes, delimiter: str) -> bool:
    """Returns whether the first lines are a table with pictures or links, or with known columns."""
    lines = head.split(b"\n")
    lines = lines[:-1] if len(lines) > 1 else lines
    rows = [_text(line).split(delimiter) for line in lines[:LOOKED_AT] if line.strip()]
    if not rows or len(rows[0]) < 2 or b"\0" in head:
        return False
    columns = columns_of(rows[0], Options())
    known = (columns.image or columns.link) and len(rows[0]) < 50
    return bool(known) or any(_named(rows, column) for column in range(len(rows[0])))


def _named(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Returns whether a column holds names of pictures, or links."""
    values = [row[column] for row in rows if len(row) > column]
    good = sum(is_link(value) or (is_picture(value) and len(value) < 300) for value in values)
    return bool(values) and 2 * good > len(rows)


def plan_table(whole: Unit, cells: Cells, file_format: str, options: Options, plan: Plan) -> None:
    """Adds the units of a table to a plan.

    Args:
      whole: the table as one unit.
      cells: its reader.
      file_format: as img2dataset calls it.
      options: of the command.
      plan: to add to.

    Raises:
      UsageError: columns are unknown, or the table is a list of links.
    """
    path = input_path(whole.path)
    rows = [row for (_, row), _ in zip(cells(path, 0, -1), range(LOOKED_AT), strict=False)]
    if not rows:
        return
    header = _has_header(rows, options)
    names = rows[0] if header else [str(number) for number in range(1, len(rows[0]) + 1)]
    columns = columns_of(names, options)
    if not header:
        columns = _by_content(rows, names, columns)
    if not columns.image and not columns.link:
        raise UsageError(
            f"{path}: neither name nor content says which of its columns holds pictures: "
            f"{', '.join(names)}; name it with --image_column (without a header, by its number), "
            "and --caption_column"
        )
    place = names.index(columns.image or columns.link)
    if all(is_link(row[place]) for row in rows[header:] if len(row) > place):
        raise _links_only(path, file_format, names, columns, header)
    extra = {"image": place, "caption": _place(names, columns.caption), "header": header}
    extra["picture"] = _place(names, columns.picture)
    plan.units += plan_rows(whole, rows_of(cells, extra), **whole.extra, **extra)


def _links_only(
    path: pathlib.Path, file_format: str, names: Sequence[str], columns: Columns, header: bool
) -> UsageError:
    link, caption = columns.link or columns.image, columns.caption
    if header:
        return links_only(path, file_format, link, caption)
    called = {link: "url", caption: "caption"}
    separator = "\\t" if file_format == "tsv" else ","
    line = separator.join(called.get(name, f"column{name}") for name in names)
    return links_only(path, file_format, "url", "caption" if caption else "", line)


def _place(names: Sequence[str], name: str) -> int:
    return names.index(name) if name else -1


def _has_header(rows: Sequence[Sequence[str]], options: Options) -> bool:
    """Returns whether the first row has names of columns, and no picture or link."""
    stated = [name for name in (options.image_column, options.caption_column) if name]
    if stated:  # Without a header, columns have numbers.
        return not all(map(str.isdigit, stated))
    columns = columns_of(rows[0], Options())
    values = any(is_link(cell) or is_picture(cell) for cell in rows[0])
    return bool(columns.image or columns.link) and not values


def _by_content(rows: Sequence[Sequence[str]], names: Sequence[str], stated: Columns) -> Columns:
    """Returns which column has pictures or links, and which the longest texts."""
    pictures = [name for place, name in enumerate(names) if _named(rows, place)]
    image = stated.image or (pictures[0] if pictures else "")

    def length(name: str) -> int:
        place = names.index(name)
        return sum(len(row[place]) for row in rows if len(row) > place)

    others = [name for name in names if name != image and name not in pictures]
    caption = stated.caption or (max(others, key=length) if others else "")
    return Columns(image=image, caption=caption)


def rows_of(cells: Cells, extra: Mapping[str, Any]) -> Reader:
    """Returns the reader of rows, from the places of columns in a unit's extras."""

    def rows(path: pathlib.Path, start: int, stop: int) -> Iterator[tuple[int, Row]]:
        for place, row in cells(path, start, stop):
            if extra["header"] and place == 0:
                continue
            if len(row) <= max(extra["image"], extra["caption"]):
                yield place, Row(fault=BAD_LINE)
                continue
            image = row[extra["image"]].strip()
            caption = row[extra["caption"]].strip() if extra["caption"] >= 0 else ""
            place_of_number = extra["picture"]
            stated = 0 <= place_of_number < len(row)
            number = row[place_of_number] if stated else same_picture(image)
            images = (image,) if image else ()
            yield place, Row(images, (caption,) if caption else (), number if image else "")

    return rows
