"""Files that conversion writes: safetensors and manifests."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.errors import UsageError

MANIFEST_FILE = "manifest.json"
DTYPES = {
    np.dtype("float32"): "F32",
    np.dtype("int64"): "I64",
    np.dtype("int32"): "I32",
    np.dtype("uint8"): "U8",
}


def write_safetensors(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes tensors in the given order.

    The library's writer sorts tensors and needs contiguous copies of all of them. This one makes
    one copy at a time. The format: eight bytes with the header's length, a JSON header, the values.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, value in tensors.items():
        start, end = end, end + value.nbytes
        header[name] = {
            "dtype": DTYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as out:
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        for value in tensors.values():
            # Values are little-endian in the format and on every machine that JAX runs on.
            out.write(np.ascontiguousarray(value).data)


def write_manifest(folder: pathlib.Path) -> None:
    """Writes size and SHA-256 of every file in the folder."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST_FILE:
            name = path.relative_to(folder).as_posix()
            entries[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    (folder / MANIFEST_FILE).write_text(json.dumps(entries, indent=1) + "\n")


def check_manifest(path: pathlib.Path) -> None:
    """Raises a ``UsageError`` if a manifest of ours lists a file with another size or digest.

    A manifest of another program, or none, proves nothing, and the file passes.
    """
    try:
        entry = json.loads((path.parent / MANIFEST_FILE).read_text())[path.name]
        size, digest = entry["bytes"], entry["sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    if path.stat().st_size != size:
        raise UsageError(
            f"{path} has {path.stat().st_size} bytes, but {MANIFEST_FILE} lists {size}. It may be "
            "cut off; copy it again"
        )
    if _sha256(path) != digest:
        raise UsageError(
            f"{path} has changed: its SHA-256 is not the one in {MANIFEST_FILE}. Copy it again"
        )


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
