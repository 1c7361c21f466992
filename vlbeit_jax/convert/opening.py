"""Other programs' tensor files, known by their content: safetensors and PyTorch, read one tensor at a time."""

import json
import math
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from vlbeit_jax.convert.rules import TensorFile
from vlbeit_jax.errors import UsageError

WRAPPERS = ("model", "state_dict", "module")
HEADER_LENGTH = 8  # Bytes before the JSON header of a safetensors file.
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
OTHERS = {  # First bytes of what comes where weights were meant.
    rb"\s*<": "a web page",
    rb"version https://git-lfs": "a Git LFS pointer, which stands for the file: fetch it with git lfs pull",
    rb"\x93NUMPY": "a NumPy array",
    rb"\x89HDF": "an HDF5 file",
    rb"\x1f\x8b": "a gzip archive: unpack it",
    rb"[\s\x20-\x7e]+$": "text",
}


def open_tensors(path: pathlib.Path) -> TensorFile:
    """A safetensors file, or a PyTorch file of nothing but tensors; which of them its first bytes say, not its name.

    Raises:
      UsageError: there is no such file, it is cut off or damaged, it holds code, or it is something else.
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
    if start[HEADER_LENGTH : HEADER_LENGTH + 1] == b"{":
        return _Safetensors(path)
    if start.startswith((ZIP, PICKLE)):
        return _Loaded(path, _load_pytorch(path, zipped=start.startswith(ZIP)))
    found = next((what for pattern, what in OTHERS.items() if re.match(pattern, start)), None)
    if found is None and len(start) <= HEADER_LENGTH:
        raise UsageError(f"{path}: {len(start)} bytes, it is cut off")
    raise UsageError(
        f"{path}: neither a safetensors nor a PyTorch file{f', but {found}' if found else ''}"
    )


class _Safetensors:
    def __init__(self, path: pathlib.Path):
        try:
            with safetensors.safe_open(
                str(path), "numpy"
            ):  # Checks the whole header; it cannot read every type that it knows.
                pass
        except (OSError, safetensors.SafetensorError) as error:
            raise UsageError(f"{path}: no safetensors file, or cut off ({error})") from error
        with path.open("rb") as content:
            length = int.from_bytes(content.read(HEADER_LENGTH), "little")
            self._header: dict[str, Any] = json.loads(content.read(length))
        self.metadata: dict[str, str] = self._header.pop("__metadata__", None) or {}
        self.shapes = {name: tuple(entry["shape"]) for name, entry in self._header.items()}
        self._path, self._start = path, HEADER_LENGTH + length

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._header[name]
        if entry["dtype"] not in DTYPES:
            raise UsageError(
                f"{self._path}: {name} is stored as {entry['dtype']}; known are {', '.join(DTYPES)}"
            )
        place, shape = self._start + entry["data_offsets"][0], self.shapes[name]
        found = np.fromfile(self._path, DTYPES[entry["dtype"]], math.prod(shape), offset=place)
        return found.reshape(shape).astype(np.float32, copy=False)


class _Loaded:
    metadata: Mapping[str, str] = {}

    def __init__(self, path: pathlib.Path, tensors: Mapping[str, Any]):
        self._path, self._tensors = path, tensors
        self.shapes = {name: tuple(value.shape) for name, value in tensors.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[name].detach().float().numpy()


def _load_pytorch(path: pathlib.Path, zipped: bool) -> dict[str, Any]:
    """The tensors of a PyTorch file, mapped and not read, out of the wrappers that training scripts put around them."""
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"{path}: PyTorch is needed to read it; install torch, or give a .safetensors file"
        ) from error
    if zipped:
        _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Of how the file was made, which its reader can do nothing about.
            found = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipped
            )  # What is not zipped cannot be mapped.
    except Exception as error:  # A damaged pickle may raise anything.
        if isinstance(error, pickle.UnpicklingError) or "TorchScript" in str(error):
            raise UsageError(_refusal(path, str(error))) from error
        said = str(error).partition("\n")[0]
        raise UsageError(
            f"{path}: cannot be read, it may be cut off or no PyTorch file ({type(error).__name__}: {said})"
        ) from error
    while isinstance(found, dict) and (
        inner := next((found[key] for key in WRAPPERS if isinstance(found.get(key), dict)), None)
    ):
        found = inner
    if not isinstance(found, dict):
        raise UsageError(
            f"{path}: holds a {type(found).__name__}; needed is a dictionary of named tensors"
        )
    named = {
        name: value
        for name, value in found.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if not named:
        raise UsageError(
            f"{path}: holds no named tensors under {', '.join(WRAPPERS)} or at the top"
        )
    return {name.removeprefix("module."): value for name, value in named.items()}


def _check_archive(path: pathlib.Path) -> None:
    """PyTorch maps the tensors of an archive without a look at their checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            names, damaged = archive.namelist(), archive.testzip()
    except Exception as error:  # Of zipfile, zlib or struct.
        raise UsageError(f"{path}: cannot be read, it is cut off or damaged ({error})") from error
    if not any(name.endswith(("data.pkl", "constants.pkl")) for name in names):
        raise UsageError(f"{path}: a zip archive, but no PyTorch file")
    if damaged:
        raise UsageError(
            f"{path} is damaged: {damaged} in it does not match its checksum; fetch the file again"
        )


def _refusal(path: pathlib.Path, said: str) -> str:
    """What to do about a file that holds more than tensors; what PyTorch proposes would run whatever is in it."""
    found = re.search(r"GLOBAL ([\w.]+)", said)
    if "TorchScript" in said:
        code = f"x = torch.jit.load({str(path)!r}, map_location='cpu')"
    else:
        code = f"x = torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
    code += f"; x = next((x[key] for key in {WRAPPERS} if isinstance(x, dict) and key in x), x)"
    code += "; x = x if isinstance(x, dict) else x.state_dict()"
    code += "; x = {name: value for name, value in x.items() if torch.is_tensor(value)}"
    code += f"; torch.save(x, {str(path.with_name(path.stem + '.tensors.pth'))!r})"
    return (
        f"{path}: refused, because it holds more than tensors{f' ({found[1]})' if found else ''} and loading it could run code; "
        f'where you trust it and have what it was made with, save its tensors alone: python -c "import torch; {code}"'
    )
