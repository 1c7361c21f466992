"""A JSON file that holds a list of objects under one key: each object with its place in the file.

The files of benchmarks have up to 400 MB. Parsed, they take six times as much memory. With the
places, a worker reads the objects of its own part alone.
"""

import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from vlbeit_jax.errors import UsageError

PAGE = "docs/published_benchmarks.md lists what belongs where"
Place = tuple[int, int]  # First byte of an object, and the one after its last.
SPACE = re.compile(r"[ \t\n\r]*")
MARK = "\xef\xbb\xbf"  # Byte-order mark, as Latin-1 shows it.


def listed(path: pathlib.Path, key: str) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Yields the objects of a list, with their places.

    Raises:
      UsageError: the file cannot be read, or holds something else.
    """
    try:
        content = path.read_bytes()
        # One character for each byte. The signs of JSON are the same in Latin-1 and in UTF-8.
        yield from _objects(content, content.decode("latin-1"), path, key)
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: cannot be read as JSON ({error}); get it again") from error


def read_at(path: pathlib.Path, places: Iterable[Place]) -> Iterator[Mapping[str, Any]]:
    """Yields the objects at some places.

    Raises:
      UsageError: the file is no longer what it was when it was listed.
    """
    try:
        with path.open("rb") as file:
            for start, stop in places:
                file.seek(start)
                yield json.loads(file.read(stop - start))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: it was changed since the work was planned ({error}); run the command again"
        ) from error


def _objects(
    content: bytes, text: str, path: pathlib.Path, key: str
) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    decoder, has_object = json.JSONDecoder(), False
    place = _after_space(text, len(MARK) if text.startswith(MARK) else 0)
    if text[place : place + 1] != "{":
        json.loads(content)  # Says what is wrong, unless it is JSON of another layout.
        _another_file(path, key)
    place = _after_space(text, place + 1)
    while text[place : place + 1] != "}":
        name, place = decoder.raw_decode(text, place)
        place = _after_space(text, _after(text, place, ":"))
        if name != key:
            _, place = decoder.raw_decode(text, place)
        elif text[place : place + 1] != "[":
            _another_file(path, key)
        else:
            has_object, place = True, _after_space(text, place + 1)
            while text[place : place + 1] != "]":
                _, stop = decoder.raw_decode(text, place)
                each = json.loads(content[place:stop])
                if not isinstance(each, dict):
                    _another_file(path, key)
                yield (place, stop), each
                place = _next(text, stop, "]")
            place += 1
        place = _next(text, place, "}")
    if not has_object:
        _another_file(path, key)


def _next(text: str, place: int, end: str) -> int:
    """Returns, after a value, the place of the next one or of the end."""
    place = _after_space(text, place)
    return place if text[place : place + 1] == end else _after_space(text, _after(text, place, ","))


def _after_space(text: str, place: int) -> int:
    blank = SPACE.match(text, place)
    return blank.end() if blank else place


def _after(text: str, place: int, sign: str) -> int:
    """Returns the place after a sign that must follow."""
    place = _after_space(text, place)
    if text[place : place + 1] != sign:
        raise json.JSONDecodeError(f"expected {sign!r}", text, place)
    return place + 1


def _another_file(path: pathlib.Path, key: str) -> NoReturn:
    raise UsageError(
        f"{path}: it has no list of objects under {key!r}, so it is another file than its name "
        f"says; {PAGE}"
    )
