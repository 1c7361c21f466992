"""Formats that can be prepared: one small file each, with what ``base.Format`` asks for.

A new format is a new file here and one line in ``FORMATS``. If its items can have groups, it has a
function in ``STATES_GROUPS`` too, which says whether some files state any. The format of a
published benchmark is in ``OFFICIAL``: its splits stand as they are (``official.py``).
"""

import pathlib
from collections.abc import Callable, Sequence

from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import (
    folder,
    imagenet,
    jsonl,
    karpathy,
    nlvr2,
    text,
    tfds_folder,
    vqav2,
    vqav2_trainval,
    webdataset,
)
from vlbeit_jax.prepare.formats.base import Format
from vlbeit_jax.types import Kind

# Where an input looks like several formats, the first of them reads it.
FORMATS: dict[str, Format] = {
    "imagenet": imagenet,
    "nlvr2": nlvr2,
    "tfds": tfds_folder,
    "vqav2": vqav2,
    "vqav2-trainval": vqav2_trainval,
    "karpathy": karpathy,
    "webdataset": webdataset,
    "folder": folder,
    "jsonl": jsonl,
    "text": text,
}
OFFICIAL = frozenset({"imagenet", "karpathy", "nlvr2", "tfds", "vqav2", "vqav2-trainval"})
# These read folders, all others files.
OF_FOLDERS = ("folder", "imagenet", "nlvr2", "tfds", "vqav2", "vqav2-trainval")
STATES_GROUPS: dict[str, Callable[[Sequence[pathlib.Path]], bool]] = {"jsonl": jsonl.states_groups}


def require_kind(name: str, kind: Kind) -> None:
    """Raises a ``UsageError`` if no item of a format can become a record of a kind."""
    kinds = FORMATS[name].KINDS
    if kind not in kinds:
        can = sorted(other for other, form in FORMATS.items() if kind in form.KINDS)
        raise UsageError(
            f"--format={name} can be read as --kind={', '.join(sorted(kinds))}, but --kind={kind} "
            f"was asked for; formats for that are {', '.join(can)}"
        )
