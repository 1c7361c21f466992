"""Formats that can be prepared: one small file each, with what ``base.Format`` asks for.

They share these modules: ``look`` and ``detect`` to recognise inputs, ``files`` and ``packed`` to
list and open them, ``lines`` to divide files of lines, ``index`` for rows that name pictures
(``tables``, ``json_values``), ``columns`` and ``columnar`` for tables with the pictures in them,
``tars`` and ``groups`` for members of tars, ``pictures``, ``captions`` and ``words`` for what they
hold, ``sidecars`` and ``links`` for lists of links, ``official`` for benchmarks.

A new format is a new file here and one line in ``FORMATS``. If its items can have groups, add a
function to ``STATES_GROUPS`` that says whether some files state any. If it knows the names of
classes, add a function to ``CLASS_NAMES`` that returns them with their file. The format of a
published benchmark is in ``OFFICIAL``: its splits stand as they are (``official.py``). It opens
inputs by ``places.input_path``, so that they may be in a bucket; if it cannot, it is in
``NEEDS_DISK``.
"""

import pathlib
from collections.abc import Callable, Sequence

from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import (
    ade20k,
    arrow,
    beit3,
    coco,
    croissant,
    csv_table,
    flickr,
    folder,
    hdf5,
    imagefolder,
    imagenet,
    json_records,
    jsonl,
    karpathy,
    nlvr2,
    parquet,
    tar_of_tars,
    text,
    tfds_folder,
    tfrecord,
    tsv_table,
    visual_genome,
    vqav2,
    vqav2_trainval,
    webdataset,
    wikiextractor,
)
from vlbeit_jax.prepare.formats.base import Format
from vlbeit_jax.types import Kind

# Where an input looks like several formats, the first of them that has the kind reads it.
FORMATS: dict[str, Format] = {
    # Folders that have files with certain names.
    "ade20k": ade20k,
    "imagenet": imagenet,
    "nlvr2": nlvr2,
    "tfds": tfds_folder,
    "vqav2": vqav2,
    "vqav2-trainval": vqav2_trainval,
    "imagefolder": imagefolder,
    # Files whose content says what they are.
    "tar_of_tars": tar_of_tars,
    "webdataset": webdataset,
    "arrow": arrow,
    "hdf5": hdf5,
    "tfrecord": tfrecord,
    "croissant": croissant,
    "karpathy": karpathy,
    "coco": coco,
    "visual_genome": visual_genome,
    "beit3": beit3,
    "flickr": flickr,
    "wikiextractor": wikiextractor,
    # After these, because Parquet and JSON beside pictures often describe them.
    "folder": folder,
    "parquet": parquet,
    "jsonl": jsonl,
    "json": json_records,
    "tsv": tsv_table,
    "csv": csv_table,
    "text": text,
}
OFFICIAL = frozenset({"ade20k", "imagenet", "karpathy", "nlvr2", "tfds", "vqav2", "vqav2-trainval"})
# They read many small files, or call a library that takes a folder.
NEEDS_DISK = frozenset(
    {"ade20k", "croissant", "imagenet", "nlvr2", "tfds", "vqav2", "vqav2-trainval"}
)
CLASS_NAMES = {"ade20k": ade20k.class_names}
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
