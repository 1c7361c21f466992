"""Plain text: a document a line, or documents with blank lines between them.

A file in which blank lines stand between lines is read in the second way, which is BERT's
convention: a line is then a sentence or a paragraph. ``--documents`` decides otherwise.
"""

import codecs
import pathlib
import re
from collections.abc import Iterator, Sequence

from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import (
    UNIT_TEXT,
    BadInput,
    Found,
    Options,
    Plan,
    Unit,
    a_unit_each,
    left_out_if_bad,
)
from vlbeit_jax.prepare.formats.files import files_below
from vlbeit_jax.prepare.formats.lines import lines_of
from vlbeit_jax.prepare.formats.links import is_link
from vlbeit_jax.prepare.formats.packed import HEAD, compression
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.TEXTS})
MARKUP = re.compile(rb"\s*<(\?xml|!doctype|html|mediawiki)\b", re.IGNORECASE)
LINE, BLANK_LINE = "line", "blank_line"


def sniff(found: Found) -> bool:
    """Returns whether a file begins with UTF-8 text, neither marked up nor a list of links."""
    return any(_is_text(file.head) and _is_prose(file.head) for file in found.files())


def _is_prose(head: bytes) -> bool:
    return not (MARKUP.match(head) or is_link(head.partition(b"\n")[0].decode("utf-8", "replace")))


def _is_text(head: bytes) -> bool:
    # The last letter of what is looked at may be cut off.
    is_whole = len(head) < HEAD
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head, is_whole)
    except UnicodeDecodeError:
        return False
    return bool(head) and "\0" not in text


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Reads the files once, to find blank lines and to divide large files between documents."""
    if options.documents not in ("", LINE, BLANK_LINE):
        raise UsageError(f"--documents={options.documents}: choose {LINE} or {BLANK_LINE}")
    result = Plan([], items=0)
    for whole in a_unit_each(files_below(paths, sniff, result.skipped)):
        with left_out_if_bad(result, options):
            path = input_path(whole.path)
            between = options.documents == BLANK_LINE or (
                not options.documents and _has_blank_lines(path)
            )
            cuts, documents = _cuts(path, between)
            result.items = (result.items or 0) + documents
            if between and not options.documents:
                result.notes.append(
                    f"{path}: blank lines separate its {documents:,} documents; if each line is "
                    "one, give --documents=line"
                )
            for (place, number), (stop, _) in zip(cuts, [*cuts[1:], (-1, 0)], strict=True):
                extra = {"between": between, "number": number}
                result.units.append(Unit(whole.path, whole.source, place, stop, extra))
    return result


def _has_blank_lines(path: pathlib.Path) -> bool:
    """Returns whether a blank line stands between two that are not blank."""
    blank = seen = False
    for _, line in lines_of(path):
        if not line.strip():
            blank = seen
        elif blank:
            return True
        else:
            seen = True
    return False


def _cuts(path: pathlib.Path, between: bool) -> tuple[list[tuple[int, int]], int]:
    """Returns where units begin, with the numbers of their first lines; and counts documents."""
    cuts, documents, after_blank = [(0, 0)], 0, True
    packed = bool(compression(path))
    for number, (place, line) in enumerate(lines_of(path)):
        filled = bool(line.strip())
        begins = filled and (after_blank or not between)
        documents += begins
        if begins and not packed and place - cuts[-1][0] >= UNIT_TEXT:
            cuts.append((place, number))
        after_blank = not filled
    return cuts, documents


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a document; its key has the number of its first line.

    Raises:
      BadInput: a file is damaged or not UTF-8.
    """
    lines: list[str] = []
    first = number = unit.extra["number"]
    for place, content in lines_of(input_path(unit.path), unit.start, unit.stop):
        try:
            line = content.decode().strip()
        except UnicodeDecodeError as error:
            raise BadInput(
                unit.path, f"not UTF-8 text ({error}), in the line at {place}"
            ) from error
        if lines and not (line and unit.extra["between"]):
            yield _item(unit, first, lines)
            lines = []
        if line:
            first = first if lines else number
            lines.append(line)
        number += 1
    if lines:
        yield _item(unit, first, lines)


def _item(unit: Unit, number: int, lines: Sequence[str]) -> Item:
    return Item(f"{unit.stem}/{number:08d}", text="\n".join(lines), source=unit.source)
