"""What all indexes of pictures share: rows that name a picture and its captions.

All rows of one picture make one item, wherever in the index they are. ``plan_rows`` finds them by
64 bits of a hash of the picture's name or number, so that an index of millions of rows fits in
memory: 16 bytes a row.
"""

import hashlib
import pathlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import UNIT_PICTURES, Options, Unit
from vlbeit_jax.prepare.formats.packed import compression
from vlbeit_jax.prepare.formats.pictures import Folder
from vlbeit_jax.prepare.item import Item

BAD_LINE = "bad_line"


class Row(NamedTuple):
    """A row of an index.

    Attributes:
      images: paths that its picture may have; the first one that exists is read.
      captions: of the picture.
      picture: name or number that all rows of the picture share; empty: the row stands alone.
      text: a document, in a row without picture.
      fault: why the row cannot be used.
    """

    images: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    picture: str = ""
    text: str = ""
    fault: str = ""


# From a file and a range of places, to the rows that begin in it, with their places.
Reader = Callable[[pathlib.Path, int, int], Iterator[tuple[int, Row]]]


def plan_rows(whole: Unit, rows: Reader, **extra: Any) -> list[Unit]:
    """Divides an index between pictures; the extras of a unit say where its other rows are.

    Args:
      whole: the index as one unit.
      rows: its reader.
      **extra: what else the units need.
    """
    path = input_path(whole.path)
    places, pictures = array("Q"), array("Q")
    for place, row in rows(path, 0, -1):
        places.append(place)
        pictures.append(_hash(row.picture or f"\0{place}"))
    if not places:
        return []
    at, hashes = np.frombuffer(places, np.uint64), np.frombuffer(pictures, np.uint64)
    # A run is a series of rows that follow each other and are about one picture.
    starts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))
    _, first, own = np.unique(hashes[starts], return_index=True, return_inverse=True)
    owner = first[own]  # The first run of each run's picture.
    later = np.flatnonzero(owner != np.arange(len(starts)))
    ends = np.append(starts[1:], len(at))
    elsewhere: dict[int, list[int]] = {}
    for run in later:
        rows_of_run = at[starts[run] : ends[run]].tolist()
        elsewhere.setdefault(int(owner[run]), []).extend(rows_of_run)
    # Where each unit begins: the run that has the unit's first row.
    wanted = np.arange(0, len(at), UNIT_PICTURES)
    cuts = [*np.unique(np.searchsorted(starts, wanted, side="right") - 1).tolist(), len(starts)]
    units = []
    for begin, end in zip(cuts[:-1], cuts[1:], strict=True):
        inside = [run for run in range(begin, end) if run in elsewhere]
        claimed = later[(later >= begin) & (later < end)]
        runs: Mapping[str, Any] = {
            "number": int(starts[begin]),
            "elsewhere": [[int(at[starts[run]]), elsewhere[run]] for run in inside],
            "claimed": [place for run in claimed for place in at[starts[run] : ends[run]].tolist()],
        }
        stop = int(at[starts[end]]) if end < len(starts) else -1
        start = int(at[starts[begin]])
        units.append(Unit(whole.path, whole.source, start, stop, {**extra, **runs}))
    return units


def read_rows(unit: Unit, options: Options, rows: Reader) -> Iterator[Item]:
    """Yields one item a picture, with the captions of all its rows."""
    path, claimed = input_path(unit.path), set(unit.extra["claimed"])
    elsewhere = {place: places for place, places in unit.extra["elsewhere"]}
    folder = picture_folder(unit, options)
    captions_there = _captions(path, rows, sorted(sum(elsewhere.values(), [])))
    number = unit.extra["number"] - 1
    open_row, open_number, more = None, 0, ()
    for place, row in rows(path, unit.start, unit.stop):
        number += 1
        if place in claimed:
            continue
        if open_row and row.picture and row.picture == open_row.picture:
            open_row = open_row._replace(captions=open_row.captions + row.captions)
            continue
        if open_row:
            yield item_of(open_row, unit, open_number, folder, more)
        open_row, open_number = row, number
        more = tuple(text for at in elsewhere.get(place, ()) for text in captions_there[at])
    if open_row:
        yield item_of(open_row, unit, open_number, folder, more)


def _captions(path: pathlib.Path, rows: Reader, places: Sequence[int]) -> dict[int, tuple]:
    """Returns the captions of some rows."""
    if places and compression(path):  # It can only be read from its beginning.
        wanted = set(places)
        return {place: row.captions for place, row in rows(path, 0, -1) if place in wanted}
    captions: dict[int, tuple] = {}
    for place in places:
        _, row = next(rows(path, place, place + 1))
        captions[place] = row.captions
    return captions


def plan_entries(whole: Unit, rows: Iterable[Row], **extra: Any) -> list[Unit]:
    """Divides an index that can only be read as a whole; the units hold their rows."""
    merged: dict[str, Row] = {}
    for number, row in enumerate(rows):
        name = row.picture or f"\0{number}"
        old = merged.get(name)
        merged[name] = old._replace(captions=old.captions + row.captions) if old else row
    entries = list(merged.values())
    return [
        Unit(
            whole.path,
            whole.source,
            start,
            min(start + UNIT_PICTURES, len(entries)),
            {**extra, "entries": [list(row) for row in entries[start : start + UNIT_PICTURES]]},
        )
        for start in range(0, len(entries), UNIT_PICTURES)
    ]


def read_entries(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields the items of a unit that holds its rows."""
    folder = picture_folder(unit, options)
    for number, entry in enumerate(unit.extra["entries"], unit.start):
        images, captions, *rest = entry
        yield item_of(Row(tuple(images), tuple(captions), *rest), unit, number, folder)


def picture_folder(unit: Unit, options: Options) -> Folder:
    """Returns the folder that paths are relative to."""
    stated = options.images or unit.extra.get("images")
    return Folder(stated or input_path(unit.path).parent)


def item_of(row: Row, unit: Unit, number: int, folder: Folder, more: tuple[str, ...] = ()) -> Item:
    """Returns the item of a row.

    Args:
      row: of an index.
      unit: that it is in.
      number: of the row.
      folder: of the pictures.
      more: captions in other rows.
    """
    image, fault = None, row.fault
    if row.images and not fault:
        image, fault = folder.read(*row.images)
    return Item(
        f"{unit.stem}/{number:08d}",
        image,
        # Some indexes repeat a row.
        tuple(dict.fromkeys(row.captions + more)),
        text=row.text,
        source=row.images[0] if row.images else unit.source,
        fault=fault,
    )


def _hash(name: str) -> int:
    encoded = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big")
