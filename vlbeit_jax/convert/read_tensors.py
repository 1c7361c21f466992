"""Reads other programs' tensor files: safetensors and PyTorch."""

import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from vlbeit_jax.convert.rules import Shape
from vlbeit_jax.errors import UsageError

WRAPPERS = ("model", "state_dict", "module")  # Keys under which training scripts keep the weights.
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
      metadata: notes that the file's writer added; most files have none.
    """

    tensors: Mapping[str, np.ndarray]
    metadata: Mapping[str, str]

    @property
    def shapes(self) -> dict[str, Shape]:
        """Every tensor's shape by name."""
        return {name: value.shape for name, value in self.tensors.items()}


def read_tensors(path: pathlib.Path) -> TensorFile:
    """Reads a safetensors file, or a PyTorch file that holds nothing but tensors.

    The first bytes decide which of them it is, not the name.

    Raises:
      UsageError: there is no such file, it is cut off or damaged, it holds code, or it is something
        else.
    """
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
        tensors = _load_pytorch(path, is_zip=start.startswith(ZIP))
        arrays = {name: value.detach().float().numpy() for name, value in tensors.items()}
        return TensorFile(arrays, {})
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


def _load_pytorch(path: pathlib.Path, is_zip: bool) -> dict[str, Any]:
    """Returns a file's tensors, out of the wrappers that training scripts put around them."""
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"{path}: PyTorch is needed to read it. Install torch, or give a .safetensors file"
        ) from error
    if is_zip:
        _check_archive(path)
    try:
        with warnings.catch_warnings():
            # They are about how the file was written, which its reader cannot change.
            warnings.simplefilter("ignore")
            # Only zip archives can be mapped into memory.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # A damaged pickle may raise anything.
        message = str(error)
        if isinstance(error, pickle.UnpicklingError) or "TorchScript" in message:
            raise UsageError(_refusal(path, message)) from error
        first_line = message.partition("\n")[0]
        raise UsageError(
            f"{path}: cannot be read; it may be cut off, or not a PyTorch file "
            f"({type(error).__name__}: {first_line})"
        ) from error
    while isinstance(content, dict):
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), dict)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, dict):
        raise UsageError(
            f"{path}: holds a {type(content).__name__}; a dictionary of named tensors is needed"
        )
    tensors = {
        name.removeprefix("module."): value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise UsageError(
            f"{path}: holds no named tensors under {', '.join(WRAPPERS)} or at the top"
        )
    return tensors


def _check_archive(path: pathlib.Path) -> None:
    """Checks the archive's checksums, because PyTorch maps tensors without looking at them."""
    try:
        with zipfile.ZipFile(path) as archive:
            names, damaged = archive.namelist(), archive.testzip()
    except Exception as error:  # zipfile, zlib and struct have no common type for damage.
        raise UsageError(f"{path}: cannot be read; it is cut off or damaged ({error})") from error
    if not any(name.endswith(("data.pkl", "constants.pkl")) for name in names):
        raise UsageError(f"{path}: a zip archive, but not a PyTorch file")
    if damaged:
        raise UsageError(
            f"{path} is damaged: {damaged} in it does not match its checksum. Fetch the file again"
        )


def _refusal(path: pathlib.Path, message: str) -> str:
    """Says how to extract the tensors of a file that holds more.

    PyTorch's own message proposes to load the file in a way that runs whatever is in it.
    """
    match = re.search(r"GLOBAL ([\w.]+)", message)
    held = f" ({match[1]})" if match else ""
    if "TorchScript" in message:
        code = f"x = torch.jit.load({str(path)!r}, map_location='cpu')"
    else:
        code = f"x = torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
    code += f"; x = next((x[key] for key in {WRAPPERS} if isinstance(x, dict) and key in x), x)"
    code += "; x = x if isinstance(x, dict) else x.state_dict()"
    code += "; x = {name: value for name, value in x.items() if torch.is_tensor(value)}"
    code += f"; torch.save(x, {str(path.with_name(path.stem + '.tensors.pth'))!r})"
    return (
        f"{path}: refused, because it holds more than tensors{held} and loading it could run code. "
        "If you trust the file and have the packages that it was made with, save its tensors "
        f'alone: python -c "import torch; {code}"'
    )
