"""Files of lines: each line with the place of its first byte, and cuts between lines."""

import pathlib
from collections.abc import Iterator

from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import UNIT_TEXT, BadInput, Unit
from vlbeit_jax.prepare.formats.packed import DAMAGED, buffered, compression, opened

MARK = b"\xef\xbb\xbf"  # Byte-order mark.


def lines_of(path: pathlib.Path, start: int = 0, stop: int = -1) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that begin in a range of bytes, with their places and ends.

    Args:
      path: of a file, compressed or not.
      start: where the first line begins, in what was compressed.
      stop: no later line begins here or after it; -1: all to the end.

    Raises:
      BadInput: the file is damaged.
    """
    try:
        with buffered(opened(path)) as file:
            if start:
                file.seek(start)
            place = start
            while (stop < 0 or place < stop) and (line := file.readline()):
                yield place, line.removeprefix(MARK) if not place else line
                place += len(line)
    except DAMAGED as error:
        raise BadInput(path, f"cannot be read to its end ({error})") from error


def cut_at_lines(whole: Unit) -> list[Unit]:
    """Divides a file at ends of lines, without reading it; a compressed file is one unit."""
    path = input_path(whole.path)
    size = path.stat().st_size
    if compression(path) or size <= UNIT_TEXT:
        return [whole]
    cuts = [0]
    with path.open("rb") as file:
        for wanted in range(UNIT_TEXT, size, UNIT_TEXT):
            file.seek(wanted)
            file.readline()
            if cuts[-1] < file.tell() < size:
                cuts.append(file.tell())
    ends = [*cuts[1:], -1]
    return [
        Unit(whole.path, whole.source, start, stop, whole.extra)
        for start, stop in zip(cuts, ends, strict=True)
    ]
