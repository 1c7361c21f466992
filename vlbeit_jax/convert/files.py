"""What is written: safetensors as a stream of tensors, and manifests."""

import ctypes
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vlbeit_jax.convert.rules import Written
from vlbeit_jax.errors import UsageError

MANIFEST_FILE = "manifest.json"
CHUNK = 16 * 2**20
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's numbers of the two options.
DTYPES = {
    np.dtype("float32"): "F32",
    np.dtype("int64"): "I64",
    np.dtype("int32"): "I32",
    np.dtype("uint8"): "U8",
}


def write_safetensors(
    path: pathlib.Path, tensors: Iterable[Written], metadata: Mapping[str, str]
) -> None:
    """Writes tensors one after the other, so that one of them at a time is in memory.

    The library's own writer wants them all at once. The format: eight bytes of header length, a JSON header, the bytes.
    """
    tensors = list(tensors)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    place = 0
    for each in tensors:
        size = each.dtype.itemsize * int(np.prod(each.shape))
        header[each.name] = {
            "dtype": DTYPES[each.dtype],
            "shape": list(each.shape),
            "data_offsets": [place, place + size],
        }
        place += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as out:
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        for each in tensors:
            value = each.read()
            assert value.shape == each.shape and value.dtype == each.dtype, (
                each,
                value.shape,
                value.dtype,
            )
            for part in pieces(value):
                out.write(
                    np.ascontiguousarray(part).data
                )  # Every machine that JAX runs on is little-endian, as the format is.
            del value, part  # Before the next one is read.


def pieces(value: np.ndarray) -> Iterable[np.ndarray]:
    """Slices along the first axis: a transposed view is copied piece by piece and never as a whole."""
    if value.ndim < 2:
        return [value]
    rows = max(1, CHUNK // max(1, value[0].nbytes))
    return (value[start : start + rows] for start in range(0, len(value), rows))


def give_memory_back() -> None:
    """Has freed memory returned to the system at once, where the C library is glibc.

    Arrays are read in many pieces, and what glibc keeps of them for later adds up to more than the largest array.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, size in ((MMAP_THRESHOLD, 2**20), (TRIM_THRESHOLD, 2**17)):
            mallopt(option, size)


def write_manifest(folder: pathlib.Path) -> None:
    """Size and SHA-256 of every file in the folder."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_FILE
    )
    found = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in files
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(found, indent=1) + "\n")


def check_manifest(path: pathlib.Path) -> None:
    """Raises a ``UsageError`` if a manifest of ours beside a file says that the file was another one; other manifests say nothing."""
    try:
        entry = json.loads((path.parent / MANIFEST_FILE).read_text())[path.name]
        size, digest = entry["bytes"], entry["sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    if path.stat().st_size != size:
        raise UsageError(
            f"{path} has {path.stat().st_size} bytes, not {size}, which {MANIFEST_FILE} says: cut off?"
        )
    if _sha256(path) != digest:
        raise UsageError(f"{path} has changed: its SHA-256 is not the one in {MANIFEST_FILE}")


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
