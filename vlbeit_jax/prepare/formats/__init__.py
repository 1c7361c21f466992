"""Formats that can be prepared: one small file each, with ``read(paths)`` that yields items.

A new format is a new file here and one line in ``FORMATS``. If its items can have groups, it has a
function in ``STATES_GROUPS`` too, which says whether some files state any. If the number of items
is quickly counted, a function in ``COUNTS`` does it, so that the time left can be shown. A format
that knows the names of classes returns them, with their file, in ``CLASS_NAMES``. The format of a
published benchmark is in ``OFFICIAL``: its ``read`` also takes the splits to read, and its splits
stand as they are (``official.py``).
"""

from vlbeit_jax.prepare.formats import (
    ade20k,
    folder,
    imagenet,
    jsonl,
    karpathy,
    nlvr2,
    text,
    tfds_folder,
    vqav2,
    webdataset,
)
from vlbeit_jax.prepare.item import filled_lines

OFFICIAL = {
    "ade20k": ade20k.read,
    "imagenet": imagenet.read,
    "karpathy": karpathy.read,
    "nlvr2": nlvr2.read,
    "tfds": tfds_folder.read,
    "vqav2": vqav2.read,
    "vqav2-trainval": vqav2.read_trainval,
}
FORMATS = {
    "folder": folder.read,
    "webdataset": webdataset.read,
    "text": text.read,
    "jsonl": jsonl.read,
    **OFFICIAL,
}
# These read folders, all others files.
OF_FOLDERS = ("ade20k", "folder", "imagenet", "nlvr2", "tfds", "vqav2", "vqav2-trainval")
CLASS_NAMES = {"ade20k": ade20k.class_names}
STATES_GROUPS = {"jsonl": jsonl.states_groups}
COUNTS = {
    "text": filled_lines,
    "jsonl": filled_lines,
    "ade20k": ade20k.count,
    "imagenet": imagenet.count,
    "karpathy": karpathy.count,
    "nlvr2": nlvr2.count,
    "vqav2": vqav2.count,
    "vqav2-trainval": vqav2.count,
}
