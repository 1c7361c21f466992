"""Pictures that are files: which files are pictures, and reading those that an index names."""

import pathlib
import posixpath

from vlbeit_jax.places import input_path
from vlbeit_jax.storage import raise_of_storage

# Suffixes of formats that the image libraries read.
IMAGES = frozenset("jpg jpeg jpe jfif png webp bmp gif tif tiff jp2 ppm pgm pbm pnm avif".split())
# An SVG is none that can be decoded, and is counted as such.
TAKEN = IMAGES | {"svg"}
MAGIC = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP",
)
OUTSIDE, MISSING = "outside_folder", "missing_file"


def is_picture(name: str) -> bool:
    """Returns whether a file's name is that of a picture."""
    return pathlib.PurePosixPath(name).suffix[1:].lower() in TAKEN


def same_picture(name: str) -> str:
    """Returns one spelling of a path: ``./a//b.jpg`` is ``a/b.jpg``."""
    return posixpath.normpath(name) if name else ""


def begins_as_picture(head: bytes) -> bool:
    """Returns whether a file's first bytes are those of a picture."""
    riff = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    return head.startswith(MAGIC) or riff or head[4:12] in (b"ftypavif", b"ftypheic")


class Folder:
    """The folder that the paths of an index are relative to; nothing outside is read."""

    def __init__(self, top: str | pathlib.Path):
        """Remembers where the folder is once its own links are followed."""
        self._top = input_path(top)
        self._resolved = self._top.resolve()

    def find(self, *names: str) -> tuple[pathlib.Path | None, str]:
        """Returns the file with one of some names, the first that is there; or None, and why.

        A path may be absolute if it leads into the folder.
        """
        reason = MISSING
        for name in names:
            try:
                path = (self._top / name).resolve()
                if not path.is_relative_to(self._resolved):
                    reason = OUTSIDE
                elif path.is_file():
                    return path, ""
            except (OSError, ValueError) as error:
                raise_of_storage(error, self._top / name)
                reason = MISSING  # No file can have such a name.
        return None, reason

    def read(self, *names: str) -> tuple[bytes | None, str]:
        """Returns the content of a picture; or None, and why there is none.

        Raises:
          StorageError: it cannot be read now.
        """
        path, reason = self.find(*names)
        if path is None:
            return None, reason
        try:
            return path.read_bytes(), ""
        except OSError as error:
            raise_of_storage(error, path)
            return None, MISSING
