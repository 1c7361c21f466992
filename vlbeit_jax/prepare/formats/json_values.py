"""JSON files as a whole: small ones are loaded, large ones are streamed."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from vlbeit_jax.prepare.formats.base import BadInput
from vlbeit_jax.prepare.formats.packed import DAMAGED, opened

LARGE = 256 << 20  # Bytes. Loading takes ten times as many, so ijson streams such a file.


def elements(path: pathlib.Path, *keys: str) -> Iterator[Any]:
    """Yields the elements of the list under some keys of a JSON file; of the file, without keys.

    Raises:
      BadInput: the file is damaged, or has no such list.
    """
    where = f"under {'.'.join(keys)!r}" if keys else "in it"
    if path.stat().st_size >= LARGE and (ijson := _ijson()):
        try:
            with opened(path) as file:
                yield from ijson.items(file, ".".join([*keys, "item"]), use_float=True)
        except (*DAMAGED, ijson.JSONError) as error:
            raise BadInput(path, f"cannot be read as JSON ({error})") from error
        return
    try:
        with opened(path) as file:
            value = json.loads(file.read())
    except (*DAMAGED, ValueError) as error:
        raise BadInput(path, f"cannot be read as JSON ({error})") from error
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, list):
        raise BadInput(path, f"there is no list {where}")
    yield from value


def _ijson() -> Any:
    try:
        import ijson
    except ImportError:
        return None
    return ijson


def first_object(head: bytes) -> Mapping[str, Any] | None:
    """Returns the first object of JSON lines or of an array; None if there is none."""
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").lstrip()
    text = text.removeprefix("[").lstrip()
    if not text.startswith("{"):
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
