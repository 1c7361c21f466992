"""Formats that can be prepared: one small file each, with ``read(paths)`` that yields items.

A new format is a new file here and one line in ``FORMATS``. If its items can have groups, it has a
function in ``STATES_GROUPS`` too, which says whether some files state any.
"""

from vlbeit_jax.prepare.formats import jsonl, text, webdataset

FORMATS = {"webdataset": webdataset.read, "text": text.read, "jsonl": jsonl.read}
STATES_GROUPS = {"jsonl": jsonl.states_groups}
