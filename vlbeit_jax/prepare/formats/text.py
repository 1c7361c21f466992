"""Plain text, one document a line."""

import pathlib
from collections.abc import Iterator, Sequence

from vlbeit_jax.prepare.formats.base import BadInput, Found, Options, Plan, Unit, a_unit_each
from vlbeit_jax.prepare.item import Item, filled_lines
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.TEXTS})


def sniff(found: Found) -> bool:
    """Returns whether a file begins with UTF-8 text."""
    try:
        text = found.head[:-4].decode()
    except UnicodeDecodeError:
        return False
    return not found.is_folder and "\0" not in text


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Plans one unit a file."""
    return Plan(a_unit_each(paths), items=filled_lines(paths))


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """One item a line that is not blank.

    Raises:
      BadInput: a file is not UTF-8.
    """
    with pathlib.Path(unit.path).open(encoding="utf-8-sig") as lines:
        try:
            for number, line in enumerate(lines):
                if line.strip():
                    yield Item(f"{unit.stem}/{number:08d}", text=line.strip(), source=unit.source)
        except UnicodeDecodeError as error:
            raise BadInput(unit.path, f"not UTF-8 text ({error})") from error
