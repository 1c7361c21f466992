"""Formats that can be prepared: one small file each, with ``read(paths)`` that yields items.

A new format is a new file here and one line in ``FORMATS``.
"""

from vlbeit_jax.prepare.formats import jsonl, text, webdataset

FORMATS = {"webdataset": webdataset.read, "text": text.read, "jsonl": jsonl.read}
