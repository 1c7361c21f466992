"""Formats that can be prepared: one small file each, with ``read(paths)`` that yields items.

A new format is a new file here and one line in ``FORMATS``. If its items can have groups, it has a
function in ``STATES_GROUPS`` too, which says whether some files state any. If the number of items
is quickly counted, a function in ``COUNTS`` does it, so that the time left can be shown.
"""

from vlbeit_jax.prepare.formats import folder, jsonl, nlvr2, text, webdataset
from vlbeit_jax.prepare.item import filled_lines

FORMATS = {
    "folder": folder.read,
    "webdataset": webdataset.read,
    "text": text.read,
    "jsonl": jsonl.read,
    "nlvr2": nlvr2.read,
}
OF_FOLDERS = ("folder", "nlvr2")  # These read folders, all others files.
STATES_GROUPS = {"jsonl": jsonl.states_groups}
COUNTS = {"text": filled_lines, "jsonl": filled_lines, "nlvr2": nlvr2.count}
