"""Webdataset tars, as webdataset and img2dataset write them: KEY.jpg, KEY.txt, KEY.json in a row.

Tars may be compressed. ``groups.py`` says which members make one example, ``TAKEN`` in
``pictures.py`` what a picture may be. Captions are the lines of KEY.txt, or else in KEY.json.
A member without picture is a text. KEY.cls is a label.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import BadInput, Found, Options, Plan, Unit, a_unit_each
from vlbeit_jax.prepare.formats.captions import words_of
from vlbeit_jax.prepare.formats.files import HIDDEN, OTHER, files_below
from vlbeit_jax.prepare.formats.groups import CROWDED, TEXTS, Group, groups_of
from vlbeit_jax.prepare.formats.look import is_hidden
from vlbeit_jax.prepare.formats.pictures import TAKEN
from vlbeit_jax.prepare.formats.sidecars import ALIVE, links_of, stats_of
from vlbeit_jax.prepare.formats.tars import Tar, is_tar, open_tar
from vlbeit_jax.prepare.formats.words import printable
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS, Kind.TEXTS, Kind.LABELLED_IMAGES})
UNUSED = "unused_part"


def sniff(found: Found) -> bool:
    """Returns whether a file, or one in a folder, is a tar, and not of tars."""
    return any(is_tar(file.head) and not is_tar(file.head[512:]) for file in found.files())


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Plans one unit a tar; files of img2dataset beside the tars tell how many links are dead."""
    result = Plan([])
    tars = files_below(paths, sniff, result.skipped)
    result.units, result.links = a_unit_each(tars), links_of(tars)
    return result


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields the items of a tar in the order of their first members.

    Raises:
      BadInput: the file is no tar, is cut off, or has fewer pictures than img2dataset wrote.
    """
    path = input_path(unit.path)
    with open_tar(path) as tar:
        yield from items_of_tar(tar, unit.stem, stats_of(path).get(ALIVE, 0))


def items_of_tar(tar: Tar, stem: str, least: int = 0) -> Iterator[Item]:
    """Yields the items of an open tar.

    Args:
      tar: to read.
      stem: begins the keys.
      least: as many pictures must be in it.

    Raises:
      BadInput: there are fewer, or the tar is damaged.
    """
    used = []
    for entry in tar.entries:
        if is_hidden(entry.name):
            yield Item(entry.name, source=entry.name, skip=HIDDEN)
        elif "." not in entry.name.rpartition("/")[2].strip("."):
            yield Item(entry.name, source=entry.name, skip=OTHER)
        else:
            used.append(entry)
    groups = groups_of(used)
    pictures = sum(bool(group.with_suffix(*TAKEN)) for group in groups)
    if pictures < least:
        raise BadInput(
            tar.path,
            f"it holds {pictures} pictures, but the file _stats.json beside it says {least}",
        )
    for group in groups:
        yield from _items(stem, tar, group)


def _items(stem: str, tar: Tar, group: Group) -> Iterator[Item]:
    """Yields the item of a group, and one for each of its parts that is not used."""
    if group.is_crowded():
        group.fault = group.fault or CROWDED
    pictures = group.with_suffix(*TAKEN, prefer="im")
    texts = group.with_suffix(*TEXTS, prefer="cap")
    if texts and "." not in texts[0]:
        texts = texts[:1]
    used = [*pictures[:1], *texts, *(part for part in ("json", "cls") if part in group.parts)]
    first = group.parts[used[0] if pictures else next(iter(group.parts))]
    values: dict[str, Any] = {"source": first.name, "fault": group.fault}
    faults = [group.parts[part].fault for part in used if group.parts[part].fault]
    if faults or group.fault:
        yield Item(f"{stem}/{group.key}", source=first.name, fault=group.fault or faults[0])
    else:
        contents = {part: tar.read(group.parts[part]) for part in used}
        values |= words_of(contents, texts, bool(pictures))
        if "cls" in contents:
            values["label"] = _label(contents["cls"])
        image = contents[pictures[0]] if pictures else None
        yield Item(f"{stem}/{group.key}", image, **values)
    for part, entry in group.parts.items():
        if part not in used:
            yield Item(entry.name, source=entry.name, skip=entry.fault or UNUSED)


def _label(content: bytes) -> str | int:
    """Returns the label in KEY.cls: a number or a name."""
    text = printable(content.decode("utf-8", "surrogateescape")).strip()
    return int(text) if text.isascii() and text.isdigit() else text
