"""Reads PyTorch files of nothing but tensors and settings; a file that holds code is refused."""

import argparse
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from vlbeit_jax.errors import UsageError

WRAPPERS = ("model", "state_dict", "module")  # Keys under which training scripts keep the weights.
ARGUMENTS = "args"  # Key under which they keep the arguments of their command.


def load_pytorch(
    path: pathlib.Path, is_zip: bool, parts: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Returns a file's tensors by name, its arguments as "args.NAME", and what was left out.

    Args:
      path: of the file.
      is_zip: whether it is an archive, as PyTorch writes since 1.6.
      parts: keys under which the wanted weights lie, the first choice first; ``WRAPPERS`` follow.

    Raises:
      UsageError: the file is cut off or damaged, holds code, or holds no named tensors.
    """
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"{path}: PyTorch is needed to read it. Run python -m pip install torch, or give a "
            ".safetensors file"
        ) from error
    if is_zip:
        _check_archive(path)
    try:
        # A namespace is what argparse makes of a command's arguments. Reading one sets attributes
        # of an empty object and runs nothing, so it may stand beside the tensors.
        allowed = torch.serialization.safe_globals([argparse.Namespace])
        with warnings.catch_warnings(), allowed:
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
    keys = (*parts, *WRAPPERS)
    content, arguments, notes = _unwrapped(content, keys)
    if not isinstance(content, dict):
        raise UsageError(
            f"{path}: holds a {type(content).__name__}; a dictionary of named tensors is needed"
        )
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if not tensors:
        held = f"; it has {', '.join(map(str, content))}" if content else ""
        raise UsageError(
            f"{path}: holds no named tensors under {', '.join(keys)} or at the top{held}"
        )
    return tensors, arguments, notes


def _unwrapped(content: Any, keys: Sequence[str]) -> tuple[Any, dict[str, str], list[str]]:
    """Returns the innermost dictionary, the arguments beside it, and a sentence on the rest."""
    arguments: dict[str, str] = {}
    notes = []
    while isinstance(content, dict):
        key = next((key for key in keys if isinstance(content.get(key), dict)), None)
        arguments |= _arguments(content.get(ARGUMENTS))
        if key is None:
            break
        others = [str(other) for other in content if other != key]
        if others:
            notes.append(f"{key} is read; the file's other parts are not: {', '.join(others)}")
        content = content[key]
    return content, arguments, notes


def _arguments(held: Any) -> dict[str, str]:
    values = vars(held) if isinstance(held, argparse.Namespace) else held
    if not isinstance(values, Mapping):
        return {}
    kinds = (bool, int, float, str)
    return {f"{ARGUMENTS}.{k}": str(v) for k, v in values.items() if isinstance(v, kinds)}


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
    # The tensors keep the keys that they lie under, because the import chooses among them: DINO's
    # file holds two networks, and only the format knows which of them is wanted. An optimizer's
    # moments lie under numbers and are left behind.
    code += "; f = lambda x: f(x.state_dict()) if hasattr(x, 'state_dict') else "
    code += "{k: v for k, v in ((k, f(v)) for k, v in x.items() if isinstance(k, str)) "
    code += (
        "if v is not None} or None if isinstance(x, dict) else x if torch.is_tensor(x) else None"
    )
    code += "; x = f(x) or sys.exit('it holds no tensors under names')"
    code += f"; torch.save(x, {str(path.with_name(path.stem + '.tensors.pth'))!r})"
    return (
        f"{path}: refused, because it holds more than tensors{held} and loading it could run code. "
        "If you trust the file and have the packages that it was made with, save its tensors "
        f'alone: python -c "import sys, torch; {code}"'
    )
