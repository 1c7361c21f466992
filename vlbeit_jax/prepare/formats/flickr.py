"""Captions of Flickr8k and Flickr30k: lines of NAME.jpg#0<TAB>CAPTION, in a ``.token`` file.

The pictures are beside the file, in ``flickr30k-images/`` or ``Flicker8k_Dataset/``.
"""

import pathlib
import re
from collections.abc import Iterator, Sequence

from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit, a_unit_each, left_out_if_bad
from vlbeit_jax.prepare.formats.files import require_files
from vlbeit_jax.prepare.formats.index import BAD_LINE, Row, plan_rows, read_rows
from vlbeit_jax.prepare.formats.lines import lines_of
from vlbeit_jax.prepare.formats.words import decoded
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS})
LINE = re.compile(rb"[^\t\n]+#\d+\t[^\t\n]*\r?$")
FOLDERS = ("flickr30k-images", "flickr30k_images", "Flicker8k_Dataset", "Images", "images")


def sniff(found: Found) -> bool:
    """Returns whether the first lines of a file are NAME#NUMBER<TAB>CAPTION."""
    lines = found.head.split(b"\n")[:-1][:20]
    return not found.is_folder and bool(lines) and all(map(LINE.match, lines))


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Finds the lines of each picture."""
    require_files(paths)
    result = Plan([])
    for whole in a_unit_each(paths):
        with left_out_if_bad(result, options):
            result.units += plan_rows(whole, _rows)
    return result


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a picture, with all its captions."""
    return read_rows(unit, options, _rows)


def _rows(path: pathlib.Path, start: int, stop: int) -> Iterator[tuple[int, Row]]:
    for place, line in lines_of(path, start, stop):
        if not line.strip():
            continue
        text, _ = decoded(line.strip(b"\r\n"))
        name, tab, caption = (text or "").partition("\t")
        name = name.rpartition("#")[0]
        if not (tab and name):
            yield place, Row(fault=BAD_LINE)
            continue
        images = (name, *(f"{folder}/{name}" for folder in FOLDERS))
        yield place, Row(images, (caption.strip(),) if caption.strip() else (), name)
