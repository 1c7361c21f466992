"""Captions as COCO publishes them: ``captions_train2017.json``, also of sets in the same layout.

Pictures are beside the file or beside its folder ``annotations``, in a folder such as
``train2017/`` or ``val2014/``, or where ``--images`` says.
"""

import pathlib
from collections.abc import Iterator, Sequence

from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import (
    BadInput,
    Found,
    Options,
    Plan,
    Unit,
    a_unit_each,
    left_out_if_bad,
)
from vlbeit_jax.prepare.formats.files import require_files
from vlbeit_jax.prepare.formats.index import Row, plan_entries, read_entries
from vlbeit_jax.prepare.formats.json_values import elements
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS})
FOLDERS = ("train2014", "val2014", "train2017", "val2017", "images")


def sniff(found: Found) -> bool:
    """Returns whether a file is a JSON object with lists of pictures and of annotations.

    The annotations may be beyond what is looked at, so their list need not be seen.
    """
    head = found.head.lstrip()
    if found.is_folder or not head.startswith(b"{") or b'"sentences"' in head:
        return False
    if b'"images"' in head and (b'"file_name"' in head or b'"annotations"' in head):
        return True
    return all(name in head for name in (b'"annotations"', b'"image_id"', b'"caption"'))


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Reads the files, and puts the captions of each picture together.

    Raises:
      BadInput: a file is damaged or has another layout.
    """
    require_files(paths)
    result = Plan([], items=0)
    for whole in a_unit_each(paths):
        with left_out_if_bad(result, options):
            path = input_path(whole.path)
            rows = _rows(path)
            top = path.parent.parent if path.parent.name == "annotations" else path.parent
            result.units += plan_entries(whole, rows, images=str(top))
            result.items = (result.items or 0) + len(rows)
    return result


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a picture."""
    return read_entries(unit, options)


def _rows(path: pathlib.Path) -> list[Row]:
    captions: dict[object, list[str]] = {}
    try:
        for each in elements(path, "annotations"):
            captions.setdefault(each["image_id"], []).append(str(each["caption"]).strip())
        rows = []
        for each in elements(path, "images"):
            name = str(each["file_name"])
            folders = dict.fromkeys(
                [*(f for f in FOLDERS if f in name or f in path.name), *FOLDERS]
            )
            images = (name, *(f"{folder}/{name}" for folder in folders))
            words = tuple(text for text in captions.get(each["id"], ()) if text)
            rows.append(Row(images, words, str(each["id"])))
    except (KeyError, TypeError) as error:
        raise BadInput(
            path, f"is no file of captions in COCO's layout: an entry lacks {error}"
        ) from error
    return rows
