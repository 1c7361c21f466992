"""Reads other programs' tensor files: safetensors and PyTorch."""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from vlbeit_jax.convert.prefixes import short_names
from vlbeit_jax.convert.pytorch_files import load_pytorch
from vlbeit_jax.convert.rules import Arrays, Shape
from vlbeit_jax.errors import UsageError

HEADER_LENGTH = 8  # Bytes of a safetensors file before its JSON header.
DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
OTHERS = {  # First bytes of what people give by mistake, and what to call it.
    rb"\s*<": "a web page",
    rb"version https://git-lfs": "a Git LFS pointer. Fetch the file itself with git lfs pull",
    rb"\x93NUMPY": "a NumPy array",
    rb"\x89HDF": "an HDF5 file",
    rb"\x1f\x8b": "a gzip archive. Unpack it",
    rb"[\s\x20-\x7e]+$": "text",
}


class TensorFile(NamedTuple):
    """The content of a tensor file.

    Attributes:
      tensors: float32 arrays by name.
      metadata: notes that the file's writer added; most files have none. Arguments of the command
        that wrote a PyTorch file are under "args.NAME".
      notes: sentences for the import's report on what was changed or left out before any rule.
    """

    tensors: Arrays
    metadata: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def shapes(self) -> dict[str, Shape]:
        """Every tensor's shape by name."""
        return {name: value.shape for name, value in self.tensors.items()}

    def changed(self, tensors: Arrays, *notes: str) -> "TensorFile":
        """Returns the file with other tensors, and sentences on what was changed."""
        return self._replace(tensors=tensors, notes=(*self.notes, *notes))


def read_tensors(
    path: pathlib.Path, parts: Sequence[str] = (), prefixes: Sequence[str] = ()
) -> TensorFile:
    """Reads a safetensors file, or a PyTorch file that holds nothing but tensors and settings.

    The first bytes decide which of them it is, not the name. Common prefixes are taken off the
    tensors' names (``convert.prefixes``).

    Args:
      path: of the file.
      parts: keys under which a PyTorch file keeps the wanted weights, besides the usual ones.
      prefixes: to take off the names, besides the common ones.

    Raises:
      UsageError: there is no such file, it is cut off or damaged, it holds code, or it is something
        else.
    """
    file = _read(path, parts)
    short, notes = short_names(file.tensors, prefixes)
    return file.changed({name: file.tensors[old] for name, old in short.items()}, *notes)


def _read(path: pathlib.Path, parts: Sequence[str]) -> TensorFile:
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the file in it")
    try:
        with path.open("rb") as content:
            start = content.read(64)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    # The header is tested first: its length may begin with the byte of a pickle.
    if start[HEADER_LENGTH : HEADER_LENGTH + 1] == b"{":
        return _read_safetensors(path)
    if start.startswith((ZIP, PICKLE)):
        tensors, arguments, notes = load_pytorch(path, start.startswith(ZIP), parts)
        arrays = {name: value.detach().float().numpy() for name, value in tensors.items()}
        return TensorFile(arrays, arguments, tuple(notes))
    kind = next((name for pattern, name in OTHERS.items() if re.match(pattern, start)), None)
    if kind is None and len(start) <= HEADER_LENGTH:
        raise UsageError(f"{path}: only {len(start)} bytes; the file is cut off")
    raise UsageError(
        f"{path}: neither a safetensors nor a PyTorch file{f', but {kind}' if kind else ''}"
    )


def _read_safetensors(path: pathlib.Path) -> TensorFile:
    try:
        with safetensors.safe_open(str(path), "numpy") as file:
            metadata = file.metadata() or {}
        # safe_open cannot give NumPy arrays of bfloat16 and float8, so take the bytes.
        entries = safetensors.deserialize(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise UsageError(f"{path}: not a safetensors file, or cut off ({error})") from error
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in DTYPES:
            raise UsageError(
                f"{path}: {name} is stored as {entry['dtype']}; supported are {', '.join(DTYPES)}"
            )
        values = np.frombuffer(entry["data"], DTYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"]).astype(np.float32, copy=False)
    return TensorFile(tensors, metadata)
