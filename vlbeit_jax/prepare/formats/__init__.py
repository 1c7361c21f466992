"""Formats that can be prepared: one small file each, with ``read(paths)`` that yields items.

A new format is a new file here and one line in ``FORMATS``. If its items can have groups, it has a
function in ``STATES_GROUPS`` too, which says whether some files state any. If the number of items
is quickly counted, a function in ``COUNTS`` does it, so that the time left can be shown.
"""

from vlbeit_jax.prepare.formats import jsonl, text, webdataset

FORMATS = {"webdataset": webdataset.read, "text": text.read, "jsonl": jsonl.read}
STATES_GROUPS = {"jsonl": jsonl.states_groups}
COUNTS = {"text": text.count, "jsonl": jsonl.count}
