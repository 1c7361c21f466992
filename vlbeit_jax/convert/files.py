"""Tensor files: safetensors written as a stream, safetensors and PyTorch files read one tensor at a time, manifests."""

import ctypes
import hashlib
import json
import pathlib
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import safetensors

from vlbeit_jax.convert.rules import Tensors, Written
from vlbeit_jax.errors import UsageError

MANIFEST_FILE = "manifest.json"
CHUNK = 16 * 2**20
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's numbers of the two options.
WRAPPERS = ("model", "state_dict", "module")
DTYPES = {np.dtype("float32"): "F32", np.dtype("int64"): "I64"}


def write_safetensors(path: pathlib.Path, tensors: Iterable[Written], metadata: Mapping[str, str]) -> None:
    """Writes tensors one after the other, so that one of them at a time is in memory.

    The library's own writer wants them all at once. The format: eight bytes of header length, a JSON header, the bytes.
    """
    tensors = list(tensors)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    place = 0
    for each in tensors:
        size = each.dtype.itemsize * int(np.prod(each.shape))
        header[each.name] = {"dtype": DTYPES[each.dtype], "shape": list(each.shape), "data_offsets": [place, place + size]}
        place += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as out:
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        for each in tensors:
            value = each.read()
            assert value.shape == each.shape and value.dtype == each.dtype, (each, value.shape, value.dtype)
            for part in pieces(value):
                out.write(np.ascontiguousarray(part).data)  # Every machine that JAX runs on is little-endian, as the format is.
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


def open_tensors(path: pathlib.Path) -> Tensors:
    """A ``.safetensors`` file, or a PyTorch file of nothing but tensors.

    Raises:
      UsageError: there is no such file, it is cut off or damaged, or it holds code.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    return _Safetensors(path) if path.suffix == ".safetensors" else _Loaded(path, _load_pytorch(path))


class _Safetensors:
    def __init__(self, path: pathlib.Path):
        try:
            self._file = safetensors.safe_open(str(path), "numpy")
        except (OSError, safetensors.SafetensorError) as error:
            raise UsageError(f"{path}: no safetensors file, or cut off ({error})") from error
        self.shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}  # noqa: SIM118 - no iterator

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self._file.get_tensor(name), np.float32)


class _Loaded:
    def __init__(self, path: pathlib.Path, tensors: Mapping[str, Any]):
        self._path, self._tensors = path, tensors
        self.shapes = {name: tuple(value.shape) for name, value in tensors.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[name].float().numpy()


def _load_pytorch(path: pathlib.Path) -> dict[str, Any]:
    """The tensors of a PyTorch file, mapped and not read, out of the wrappers that training scripts put around them."""
    try:
        import torch
    except ImportError as error:
        raise UsageError(f"{path}: PyTorch is needed to read it; install torch, or give a .safetensors file") from error
    try:
        zipped = zipfile.is_zipfile(path)  # Files of PyTorch before 1.6 are not, and cannot be mapped.
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (pickle.UnpicklingError, OSError, RuntimeError, ValueError, EOFError) as error:
        said = str(error).partition("\n")[0]
        if isinstance(error, pickle.UnpicklingError) or "TorchScript" in said:
            how = "torch.jit.load" if "TorchScript" in said else "torch.load"
            trust = "" if "TorchScript" in said else ", weights_only=False"
            raise UsageError(
                f"{path}: refused, because it holds more than tensors and loading it could run code ({said}); "
                "save its state dict alone, where you trust it and have what it was made with: "
                f"python -c \"import torch; torch.save({how}('{path.name}', map_location='cpu'{trust}).state_dict(), '{path.stem}.pth')\""
            ) from error
        raise UsageError(f"{path}: cannot be read, it may be cut off ({said})") from error
    while isinstance(found, dict) and (inner := next((found[key] for key in WRAPPERS if isinstance(found.get(key), dict)), None)):
        found = inner
    tensors = {name.removeprefix("module."): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise UsageError(f"{path}: holds no tensors under {', '.join(WRAPPERS)} or at the top")
    return tensors


def write_manifest(folder: pathlib.Path) -> None:
    """Size and SHA-256 of every file in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    found = {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files}
    (folder / MANIFEST_FILE).write_text(json.dumps(found, indent=1) + "\n")


def check_manifest(folder: pathlib.Path, only: str = "") -> None:
    """Raises a ``UsageError`` that names every file which is not what the manifest says; ``only``: asks about that one alone."""
    try:
        said = json.loads((folder / MANIFEST_FILE).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: no readable {MANIFEST_FILE} ({error})") from error
    wrong = []
    for name, entry in said.items():
        path = folder / name
        if only and name != only:
            continue
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif path.stat().st_size != entry["bytes"]:
            wrong.append(f"{name} has {path.stat().st_size} bytes, not {entry['bytes']}: cut off?")
        elif _sha256(path) != entry["sha256"]:
            wrong.append(f"{name} has changed: its SHA-256 is not the one that was written")
    if wrong:
        raise UsageError(f"{folder} is damaged:\n  " + "\n  ".join(wrong))


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
