"""WikiExtractor's output: ``<doc id="1" title="Cat">``, the title, the text, ``</doc>``.

The output with ``--json`` is read by ``json_records``.
"""

import html
import pathlib
import re
from collections.abc import Iterator, Sequence

from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import BadInput, Found, Options, Plan, Unit, a_unit_each
from vlbeit_jax.prepare.formats.files import files_below
from vlbeit_jax.prepare.formats.lines import lines_of
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.TEXTS})
OPEN = re.compile(r'<doc id="([^"]*)".* title="(.*)">$')
CLOSE = "</doc>"


def sniff(found: Found) -> bool:
    """Returns whether a file begins with the tag of a document."""
    return any(file.head.lstrip().startswith(b"<doc ") for file in found.files())


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Plans one unit a file; WikiExtractor writes 1 MB files if nothing else is asked for."""
    result = Plan([])
    result.units = a_unit_each(files_below(paths, sniff, result.skipped))
    return result


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a document, without the line of its title; entities become characters.

    Raises:
      BadInput: a file is not UTF-8, or a document in it has no end.
    """
    document: list[str] | None = None
    opened, number = None, 0
    for place, content in lines_of(input_path(unit.path)):
        try:
            line = content.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise BadInput(
                unit.path, f"not UTF-8 text ({error}), in the line at {place}"
            ) from error
        if document is None:
            opened = OPEN.match(line)
            document = [] if opened else None
        elif line == CLOSE and opened:
            yield _item(unit, number, opened[2], document)
            document, number = None, number + 1
        else:
            document.append(line)
    if document is not None:
        raise BadInput(unit.path, f"its last document has no {CLOSE}, so the file is cut off")


def _item(unit: Unit, number: int, title: str, lines: list[str]) -> Item:
    if lines and html.unescape(lines[0]) == html.unescape(title):
        lines = lines[1:]
    text = html.unescape("\n".join(line.strip() for line in lines)).strip()
    # WikiExtractor's suffixes are numbers of files: wiki_00 has none.
    return Item(f"{unit.source}/{number:08d}", text=text, source=unit.source)
