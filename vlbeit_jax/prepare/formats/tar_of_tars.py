"""Tars of tars, one a class, as ImageNet-22K comes: ``n01440764.tar`` within ``fall11_whole.tar``.

The label of a picture is the name of the inner tar.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit, a_unit_each, left_out_if_bad
from vlbeit_jax.prepare.formats.files import HIDDEN, OTHER, files_below
from vlbeit_jax.prepare.formats.look import is_hidden
from vlbeit_jax.prepare.formats.packed import compression
from vlbeit_jax.prepare.formats.tars import is_tar, open_tar
from vlbeit_jax.prepare.formats.webdataset import items_of_tar
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS, Kind.LABELLED_IMAGES})
UNIT = 512 << 20  # Bytes of inner tars.


def sniff(found: Found) -> bool:
    """Returns whether the first member of a tar is a tar."""
    return any(is_tar(file.head) and is_tar(file.head[512:]) for file in found.files())


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Divides the inner tars.

    Raises:
      BadInput: a file is damaged.
      UsageError: the outer tar is compressed.
    """
    result = Plan([])
    for whole in a_unit_each(files_below(paths, sniff, result.skipped)):
        with left_out_if_bad(result, options):
            path = input_path(whole.path)
            if compression(path):
                raise UsageError(
                    f"{path}: unpack it once (gunzip, unxz or unzstd): it is read in parts"
                )
            members: list[tuple[str, int, int]] = []
            with open_tar(path, contents=False) as tar:
                for entry in tar.entries:
                    if is_hidden(entry.name):
                        result.skipped[HIDDEN] += 1
                    elif entry.fault or not entry.name.partition(".")[2].startswith("tar"):
                        result.skipped[entry.fault or OTHER] += 1
                    else:
                        members.append((entry.name, *tar.extent(entry)))
            result.units += _units(whole, members)
    return result


def _units(whole: Unit, members: Sequence[tuple[str, int, int]]) -> list[Unit]:
    units, part, size = [], [], 0
    for number, member in enumerate(members, 1):
        part.append(list(member))
        size += member[2]
        if size >= UNIT or number == len(members):
            units.append(
                Unit(whole.path, whole.source, number - len(part), number, {"members": part})
            )
            part, size = [], 0
    return units


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields the items of some inner tars.

    Raises:
      BadInput: one of them is damaged.
    """
    for name, start, length in unit.extra["members"]:
        label = pathlib.PurePosixPath(name).name.partition(".")[0]
        stem = f"{unit.stem}/{name.partition('.tar')[0]}"
        with open_tar(input_path(unit.path), (start, length)) as tar:
            for item in items_of_tar(tar, stem):
                yield dataclasses.replace(item, label=label, source=f"{name}/{item.source}")
