"""Plain text, one document a line."""

import pathlib
from collections.abc import Iterator, Sequence

from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.item import Item, source_names


def read(paths: Sequence[pathlib.Path]) -> Iterator[Item]:
    """One item a line that is not blank.

    Raises:
      UsageError: a file is not UTF-8.
    """
    for path, source in zip(paths, source_names(paths), strict=True):
        with path.open(encoding="utf-8-sig") as lines:
            try:
                for number, line in enumerate(lines):
                    if line.strip():
                        yield Item(f"{source}/{number:08d}", text=line.strip())
            except UnicodeDecodeError as error:
                raise UsageError(f"{path}: not UTF-8 text ({error})") from error
