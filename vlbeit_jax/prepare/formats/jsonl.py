"""JSON lines: one object a line, for data that somebody annotated (docs/finetune.md).

One file may serve several kinds, each of which takes the keys that it needs. Unlike in a crawl, a
line that is wrong is an error, because a line that is left out would change a benchmark.
"""

import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vlbeit_jax.config.nearest import spelt_like
from vlbeit_jax.data.identity import SPLITS
from vlbeit_jax.data.text import has_words
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit, a_unit_each
from vlbeit_jax.prepare.formats.files import require_files
from vlbeit_jax.prepare.item import Item, filled_lines, source_paths
from vlbeit_jax.storage import raise_of_storage
from vlbeit_jax.types import Kind

KINDS = frozenset(Kind) - {Kind.TOKENS}
LOOKED_AT = 100  # Lines, to recognise a file.
# Of files with other keys alone, such as image and text, ``json_records`` counts wrong lines.
OWN = {"captions", "answers", "images", "mask", "truth", "label", "group", "split"}
MOST_ANSWERS = 10  # As many as VQAv2 has of each question.
BOM = b"\xef\xbb\xbf"
IMAGES = 2  # That a statement is about, as in NLVR2.


def sniff(found: Found) -> bool:
    """Returns whether the first lines of a file fit this format, and no looser one would do."""
    if found.is_folder:
        return False
    lines = [line for line in found.head.removeprefix(BOM).split(b"\n") if line.strip()]
    # The last one may be cut off.
    lines = lines[: max(1, len(lines) - 1)][:LOOKED_AT]
    try:
        return bool(lines) and all(OWN & _parsed(line.decode()).keys() for line in lines)
    except (_Fault, UnicodeDecodeError):
        return False


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Plans one unit for all files, because no two lines may have one id."""
    require_files(paths)
    first = a_unit_each(paths)[0]
    unit = Unit(first.path, first.source, extra={"paths": [str(path) for path in paths]})
    return Plan([unit], items=filled_lines(paths))


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields the items of all files; see ``read_lines``."""
    return read_lines([input_path(path) for path in unit.extra["paths"]])


def read_lines(paths: Sequence[pathlib.Path]) -> Iterator[Item]:
    """One item a line that is not blank; what is wrong with one is its ``fault``.

    Raises:
      UsageError: a file is not UTF-8.
    """
    first: dict[str, str] = {}  # Where each id is.
    for path, source in zip(paths, source_paths(paths), strict=True):
        with path.open(encoding="utf-8-sig") as lines:
            try:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        item = _item(line, path, source, number)
                        if item.key in first:
                            fault = f"its id {item.key!r} is also that of {first[item.key]}"
                            item = Item(item.key, place=item.place, fault=item.fault or fault)
                        first.setdefault(item.key, item.place)
                        yield item
            except UnicodeDecodeError as error:
                raise UsageError(f"{path}: not UTF-8 text ({error})") from error


def states_groups(paths: Sequence[pathlib.Path]) -> bool:
    """Returns whether any line has a group. What is wrong with a line, ``read`` says."""
    for path in paths:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            if any(_has_group(line) for line in lines):
                return True
    return False


def _has_group(line: str) -> bool:
    if '"group"' not in line:  # Most lines need not be parsed.
        return False
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and "group" in found


def _item(line: str, path: pathlib.Path, source: pathlib.PurePath, number: int) -> Item:
    key, place = f"{source.with_suffix('').as_posix()}/{number:08d}", f"{path}:{number}"
    try:
        values = _parsed(line)
        key = values.pop("id", key)
        if "images" in values:
            names = values["images"]
            pictures = tuple(_picture(path.parent, name) for name in names)
            values |= {"images": pictures, "source": names[0]}
        image = values.pop("image", None)
        if image is not None:
            values |= {"image": _picture(path.parent, image), "source": image}
        if "mask" in values:
            values["mask"] = _picture(path.parent, values["mask"], "mask")
    except _Fault as error:
        return Item(key, place=place, fault=str(error))
    return Item(**{"key": key, "source": source.as_posix(), **values, "place": place})


class _Fault(Exception):
    """What is wrong with a line."""


def _parsed(line: str) -> dict[str, Any]:
    """Returns the line's values, checked and in the types of ``Item``."""
    try:
        found = json.loads(line, object_pairs_hook=_without_repetition)
    except ValueError as error:
        raise _Fault(f"this line is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise _Fault(f"this line holds a {type(found).__name__} and not an object in braces")
    for name in found:
        if name not in KEYS:
            near = spelt_like(name, KEYS)
            hint = f"; did you mean {near!r}?" if near else f"; the keys are {', '.join(KEYS)}"
            raise _Fault(f"it has an unknown key {name!r}{hint}")
    return {name: KEYS[name](name, value) for name, value in found.items()}


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise _Fault(f"it has the key {name!r} twice")
    return dict(pairs)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _Fault(f"its {name!r} is {json.dumps(value)} and not a string")
    if not value:
        raise _Fault(f"its {name!r} is empty")
    if not value.strip():
        raise _Fault(f"its {name!r} is blank: {value!r}")
    return value.strip()


def _words(name: str, value: Any) -> str:
    text = _text(name, value)
    # Letters, numbers or symbols, such as emoji: not punctuation and white space alone.
    if not has_words(text):
        raise _Fault(f"its {name!r} has no word: {value!r}")
    return text


def _label(name: str, value: Any) -> str | int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise _Fault(
            f"its 'label' is {json.dumps(value)} and not the name of a class (a string), or its "
            "number in the file of --classes"
        )
    return _text(name, value)


def _split(name: str, value: Any) -> str:
    if value not in SPLITS:
        raise _Fault(f"its 'split' is {json.dumps(value)} and not one of {', '.join(SPLITS)}")
    return value


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Fault(f"its {name!r} is {json.dumps(value)} and not true or false")
    return value


def _two_paths(name: str, value: Any) -> tuple[str, ...]:
    paths = _list_of(_text)(name, value)
    if len(paths) != IMAGES:
        raise _Fault(f"its {name!r} has {len(paths)} entries, but two are needed: two paths")
    return paths


def _list_of(check: Callable[[str, Any], str], most: int = 0) -> Callable[[str, Any], Any]:
    def checked(name: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            raise _Fault(f"its {name!r} is {json.dumps(value)} and not a list of strings")
        if most and len(value) > most:
            raise _Fault(f"its {name!r} has {len(value)} entries, more than {most}")
        return tuple(check(name, each) for each in value)

    return checked


KEYS: dict[str, Callable[[str, Any], Any]] = {
    "id": _text,
    "image": _text,
    "images": _two_paths,
    "text": _words,
    "captions": _list_of(_words),
    "answers": _list_of(_text, MOST_ANSWERS),
    "mask": _text,
    "truth": _truth,
    "label": _label,
    "group": _text,
    "split": _split,
}


def _picture(folder: pathlib.Path, name: str, what: str = "image") -> bytes:
    """Returns the bytes of a picture, whose path is relative to the file that names it."""
    path = folder / name
    # A file that somebody else wrote must not copy any other file of this machine into a set.
    if not path.resolve().is_relative_to(folder.resolve()):
        raise _Fault(f"its {what} {name!r} is outside the folder of the JSONL file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise_of_storage(error, path)
        raise _Fault(f"its {what} {name!r} cannot be read: {error.strerror}") from error
