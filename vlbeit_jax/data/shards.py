"""Whether the shards of a prepared set are those that its description lists."""

import hashlib
import itertools
import pathlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from vlbeit_jax.errors import BadData
from vlbeit_jax.storage import UNREAD, told_of_storage

END = 2**16  # Bytes at both ends of a file. ArrayRecord's list of records is in the last ones.
# Entries of a shard in the description. "size" is that of the file; "bytes", which ``prepare`` adds
# for TFDS, is the sum of the sizes of its records without the file's own structure.
SIZE, ENDS, SHA256, RECORDS = "size", "ends_sha256", "sha256", "records"
THREADS, SHOWN = 16, 3


def facts_of(path: pathlib.Path) -> dict[str, Any]:
    """Returns what the description says of a shard, so that it can be checked at every start."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        return {SIZE: size, ENDS: _ends(file, size)}


def require_shards(
    folder: pathlib.Path, shards: Mapping[str, Mapping[str, Any]], whole: bool = False
) -> None:
    """Checks shards by their sizes and both ends; those of earlier versions by their counts.

    Args:
      folder: of the set.
      shards: by name, what the description says.
      whole: compare the SHA-256 of the whole file instead of its ends, where it was written down.

    Raises:
      BadData: a shard is missing, or is not the one that was written.
      StorageError: one cannot be read now.
      UsageError: this user may not read one.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        names = list(shards)
        found = pool.map(
            _wrong, [folder / name for name in names], shards.values(), itertools.repeat(whole)
        )
        wrong = [f"{name} {what}" for name, what in zip(names, found, strict=True) if what]
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise BadData(
            f"{folder}: of {len(shards)} shards, {len(wrong)} are not those that were written: "
            f"{'; '.join(wrong[:SHOWN])}{more}; copy them again, or prepare the set again"
        )


def _wrong(path: pathlib.Path, written: Mapping[str, Any], whole: bool) -> str:
    """Returns what is wrong with a shard; empty if nothing is."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size != written.get(SIZE, size):
                return f"has {size:,} bytes, but {written[SIZE]:,} were written"
            if whole and SHA256 in written:
                file.seek(0)
                found = hashlib.file_digest(file, "sha256").hexdigest()
                return _differs(SHA256, written[SHA256], found)
            if ENDS in written:
                return _differs(f"SHA-256 of its ends ({ENDS})", written[ENDS], _ends(file, size))
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        if told := told_of_storage(error, path, UNREAD):
            raise told from error
        return f"cannot be read ({error.strerror or error})"
    return _wrong_count(path, written[RECORDS])


def _differs(what: str, written: str, found: str) -> str:
    return "" if found == written else f"holds something else: its {what} is not the one written"


def _ends(file: BinaryIO, size: int) -> str:
    """Returns the SHA-256 of the first and the last bytes of a file."""
    file.seek(0)
    digest = hashlib.sha256(file.read(END))
    file.seek(max(size - END, 0))
    digest.update(file.read(END))
    return digest.hexdigest()


def _wrong_count(path: pathlib.Path, written: int) -> str:
    from array_record.python.array_record_module import ArrayRecordReader

    if not written:  # An empty shard may have no list of records.
        return ""
    try:
        reader = ArrayRecordReader(str(path))
        found = reader.num_records()
        reader.close()
    except Exception as error:  # Its reader raises errors of many types on damaged files.
        return f"cannot be read ({error})"
    return "" if found == written else f"has {found} records, but {written} were written"
