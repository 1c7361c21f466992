"""Tars: an index of their members, and the contents in any order.

An index needs the headers only, which are skipped through quickly. It shows a damaged tar before
the first item, and which names belong together although their members do not follow each other.
"""

import contextlib
import dataclasses
import pathlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from typing import IO

from vlbeit_jax.copies import on_disk
from vlbeit_jax.prepare.formats.base import BadInput
from vlbeit_jax.prepare.formats.packed import DAMAGED, compression, opened

IN_MEMORY = 256 << 20  # Bytes of a tar within a tar; a larger one goes to a temporary file.
LINK, SPECIAL = "link", "special_file"


class _Member(tarfile.TarInfo):
    """A header that must be there unless the end mark is: otherwise the tar is damaged.

    tarfile alone would take a tar that was cut off for one that ends there.
    """

    @classmethod
    def fromtarfile(cls, tarfile_):
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # pyright: ignore[reportAttributeAccessIssue] - the regular end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error) or "no end mark") from error


@dataclasses.dataclass(frozen=True)
class Entry:
    """A member of a tar.

    Attributes:
      name: its path in the tar.
      place: number of the member with its content; two members may have one name.
      fault: why it has no content: ``LINK`` or ``SPECIAL``; empty if it has.
    """

    name: str
    place: int
    fault: str = ""


class Tar:
    """An open tar: ``entries``, and the content of each."""

    def __init__(self, path: pathlib.Path, archive: tarfile.TarFile):
        self.path, self._archive = path, archive
        self._members = archive.getmembers()
        self.entries: list[Entry] = []
        places: dict[str, int] = {}  # Of the files so far, which a hard link may name.
        for place, member in enumerate(self._members):
            name = member.name.removeprefix("./")
            if member.isreg():
                places[member.name] = place
                self.entries.append(Entry(name, place))
            elif member.islnk() and member.linkname in places:
                places[member.name] = places[member.linkname]
                self.entries.append(Entry(name, places[member.linkname]))
            elif not member.isdir():
                fault = LINK if member.issym() or member.islnk() else SPECIAL
                self.entries.append(Entry(name, place, fault))

    def read(self, entry: Entry) -> bytes:
        """Returns the content of a member; of a hard link, that of the member it names.

        Raises:
          BadInput: the tar is damaged.
        """
        try:
            content = self._archive.extractfile(self._members[entry.place])
            assert content is not None, "an entry without fault has content"
            return content.read()
        except (tarfile.TarError, OSError) as error:
            raise BadInput(self.path, f"{entry.name} in it cannot be read ({error})") from error

    def extent(self, entry: Entry) -> tuple[int, int]:
        """Returns the place of the first byte of a member's content, and its length."""
        member = self._members[entry.place]
        return member.offset_data, member.size


@contextlib.contextmanager
def open_tar(
    path: pathlib.Path, within: tuple[int, int] | None = None, *, contents: bool = True
) -> Iterator[Tar]:
    """Opens a tar, compressed or not.

    A compressed one is unpacked to a temporary file without a name first, because it cannot be
    read in another order. Its members never become files.

    Args:
      path: of a file.
      within: ``Tar.extent`` of a tar in the file; None: the file is the tar.
      contents: whether members are read, so that a tar in a bucket is copied first; otherwise only
        its headers are fetched.

    Raises:
      BadInput: it is no tar, or it is damaged or cut off.
    """
    with contextlib.ExitStack() as stack:
        try:
            if within is None:
                here = stack.enter_context(on_disk(path)) if contents else path
                file, mode = stack.enter_context(_seekable(here)), "r:"
            else:
                file, mode = stack.enter_context(_part(path, *within)), "r:*"
            archive = stack.enter_context(
                tarfile.open(fileobj=file, mode=mode, tarinfo=_Member)  # pyright: ignore[reportCallIssue, reportArgumentType] - modes are literals there
            )
            tar = Tar(path, archive)
        except (tarfile.TarError, *DAMAGED) as error:
            raise BadInput(path, f"cannot be read as a tar ({error})") from error
        yield tar


@contextlib.contextmanager
def _part(path: pathlib.Path, start: int, length: int) -> Iterator[IO[bytes]]:
    with path.open("rb") as file, tempfile.SpooledTemporaryFile(IN_MEMORY) as part:
        file.seek(start)
        while length and (block := file.read(min(length, 1 << 20))):
            part.write(block)
            length -= len(block)
        part.seek(0)
        yield part


@contextlib.contextmanager
def _seekable(path: pathlib.Path) -> Iterator[IO[bytes]]:
    with opened(path) as file:
        if not compression(path):
            yield file
            return
        with tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(file, unpacked, 1 << 20)
            unpacked.seek(0)
            yield unpacked


def is_tar(head: bytes) -> bool:
    """Returns whether a file begins with the header of a tar."""
    if head[257:262] == b"ustar":
        return True
    try:  # The oldest tars have no mark, but a checksum.
        return bool(head[:1].strip(b"\0")) and bool(
            tarfile.TarInfo.frombuf(head[:512], "utf-8", "")
        )
    except tarfile.HeaderError:
        return False
