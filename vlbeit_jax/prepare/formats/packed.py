"""Compressed files: recognised by their first bytes, read as if they were not compressed."""

import bz2
import contextlib
import gzip
import io
import lzma
import pathlib
import zlib
from typing import IO, Any, cast

from vlbeit_jax.prepare.formats.needs import needed

MAGIC = {
    "gz": b"\x1f\x8b",
    "bz2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zst": b"\x28\xb5\x2f\xfd",
}
UNPACKS = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
HEAD, BLOCK = 65536, 4096  # A damaged file may end after some blocks.
# What reading a damaged file raises. Zstandard's own error is a plain subclass of Exception.
DAMAGED = (OSError, EOFError, lzma.LZMAError, zlib.error)


def compression(path: pathlib.Path) -> str:
    """Returns the name of a file's compression, a key of ``MAGIC``; empty if it has none."""
    with path.open("rb") as file:
        return _compression(file)


def _compression(file: IO[bytes]) -> str:
    head = file.read(8)
    file.seek(0)
    return next((name for name, magic in MAGIC.items() if head.startswith(magic)), "")


def opened(path: pathlib.Path) -> IO[bytes]:
    """Opens a file to read what was compressed, or the file itself.

    Raises:
      UsageError: it is compressed with Zstandard, and the library for that is missing.
      OSError: it cannot be opened.
    """
    with contextlib.ExitStack() as on_error:
        file = on_error.enter_context(path.open("rb"))
        name = _compression(file)
        if name == "zst":
            zstandard = needed("zstandard", f"{path} is compressed with Zstandard")
            unpacked: Any = _Zstandard(zstandard, file)
        else:
            unpacked = _Unpacked(UNPACKS[name](file), file) if name else file
        on_error.pop_all()  # Who reads it closes it.
        return cast(IO[bytes], unpacked)


def head_of(path: pathlib.Path) -> bytes:
    """Returns the first 64 KiB of what a file holds; less, or nothing, of a damaged file."""
    head = b""
    try:
        with opened(path) as file:
            while len(head) < HEAD and (more := file.read(min(BLOCK, HEAD - len(head)))):
                head += more
    except DAMAGED:
        pass  # The format that reads the file says what is wrong with it.
    return head


class _Unpacked(io.RawIOBase):
    """What a compressed file holds; it closes the file too."""

    def __init__(self, reader: Any, file: IO[bytes]):
        self._reader, self._file = reader, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = 0) -> int:
        return self._reader.seek(place, whence)

    def readinto(self, buffer: Any) -> int:
        return self._reader.readinto(buffer)

    def close(self) -> None:
        self._reader.close()
        self._file.close()
        super().close()


class _Zstandard(io.RawIOBase):
    """All frames of a Zstandard file; a damaged one raises an ``OSError``, as other kinds do."""

    def __init__(self, zstandard: Any, file: IO[bytes]):
        self._file = file
        self._error = zstandard.ZstdError
        self._reader = zstandard.ZstdDecompressor().stream_reader(
            self._file, read_across_frames=True
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._reader.read(len(buffer))
        except self._error as error:
            raise OSError(f"damaged Zstandard data: {error}") from error
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


def buffered(file: IO[bytes]) -> IO[bytes]:
    """Returns the file with fast ``readline``."""
    if isinstance(file, io.RawIOBase):
        return cast(IO[bytes], io.BufferedReader(file, HEAD))
    return file
