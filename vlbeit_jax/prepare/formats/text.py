"""Plain text, one document a line."""

import pathlib
from collections.abc import Iterator, Sequence

from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.item import Item, source_paths


def read(paths: Sequence[pathlib.Path]) -> Iterator[Item]:
    """One item a line that is not blank.

    Raises:
      UsageError: a file is not UTF-8.
    """
    for path, source in zip(paths, source_paths(paths), strict=True):
        with path.open(encoding="utf-8-sig") as lines:
            try:
                for number, line in enumerate(lines):
                    if line.strip():
                        key = f"{source.with_suffix('').as_posix()}/{number:08d}"
                        yield Item(key, text=line.strip(), source=source.as_posix())
            except UnicodeDecodeError as error:
                raise UsageError(f"{path}: not UTF-8 text ({error})") from error
