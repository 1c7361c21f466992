"""Paths in a bucket, such as gs://bucket/name: ``pathlib.Path`` over the store's own requests.

``etils.epath`` uses the same file system for ``gs://``. It cannot create an object only if there is
none, nor join two objects, and of local files it hides some and opens some otherwise. So local
paths stay those of ``pathlib``, and a path in a bucket answers to the same methods.

A bucket has no folders: one exists while an object lies in it. Objects appear whole, but cannot be
renamed or extended.
"""

import contextlib
import datetime
import fnmatch
import glob
import io
import os
import pathlib
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, Self

from vlbeit_jax.buckets.store import SCHEME, explained, store
from vlbeit_jax.errors import UsageError

JSON = {"Content-Type": "application/json"}
FILE, FOLDER = "file", "folder"
BLOCK = 1 << 20  # Bytes of a request of a stream: few beyond the head of a file that is looked at.
PARALLEL = 32  # Requests at a time when many objects are read or written.


class BucketPath(pathlib.PosixPath):
    """A path that begins with gs://. What is missing here does not exist in a bucket."""

    def __str__(self) -> str:
        """The address; pathlib makes one slash of two."""
        return re.sub(rf"^{SCHEME}:/+", f"{SCHEME}://", super().__str__())

    def __fspath__(self) -> str:
        """The address, as programs take it that read buckets themselves."""
        return str(self)

    def is_absolute(self) -> bool:
        """Whether it names its bucket."""
        return str(self).startswith(f"{SCHEME}://")

    def absolute(self) -> Self:
        """Returns the path: there is no current folder."""
        return self

    def resolve(self, strict: bool = False) -> Self:
        """Returns the path: there are no links."""
        return self

    def expanduser(self) -> Self:
        """Returns the path."""
        return self

    def facts(self) -> dict[str, Any]:
        """Returns what the store says of the object: ``size``, ``generation``, ``updated``.

        Raises:
          FileNotFoundError: there is none.
        """
        answer = self.request("GET", json_out=True)
        return answer | {"size": int(answer["size"])}

    def _type(self) -> str:
        if self.is_file():
            return FILE
        bucket, name = self.parts[1], "/".join([*self.parts[2:], ""]).lstrip("/")
        with explained(self), contextlib.suppress(FileNotFoundError):
            asked = {"prefix": name, "maxResults": 1, "json_out": True}
            if store().call("GET", "b/{}/o", bucket, **asked).get("items"):
                return FOLDER
        return ""

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object, or one below."""
        return bool(self._type())

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object."""
        if len(self.parts) < 3:
            return False
        try:
            self.facts()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object below."""
        return self._type() == FOLDER

    def is_symlink(self) -> bool:
        """There are no links."""
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Returns size and time of an object."""
        facts = self.facts()
        time = int(datetime.datetime.fromisoformat(facts["updated"]).timestamp())
        told = stat.S_IFREG, 0, 0, 1, 0, 0, facts["size"], time, time, time
        # Another content has another generation, which is the time of its upload in microseconds.
        return os.stat_result(told, {"st_mtime_ns": int(facts["generation"]) * 1000})

    def iterdir(self) -> Iterator["BucketPath"]:
        """Yields what lies in a folder; nothing if there is none."""
        with explained(self), contextlib.suppress(FileNotFoundError):
            names = store().ls(str(self), detail=False)
            yield from sorted(child for name in names if (child := _named(name)) != self)

    def glob(self, pattern: str, **options: Any) -> Iterator["BucketPath"]:
        """Yields what has a name of this pattern."""
        with explained(self):
            yield from sorted(map(_named, store().glob(f"{glob.escape(str(self))}/{pattern}")))

    def files(self) -> list["BucketPath"]:
        """Returns every object below, sorted."""
        with explained(self):
            paths = map(_named, store().find(str(self)))
            return sorted(each for each in paths if each != self)

    def rglob(self, pattern: str, **options: Any) -> Iterator["BucketPath"]:
        """Yields every object below whose name has this pattern."""
        return (each for each in self.files() if fnmatch.fnmatchcase(each.name, pattern))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing, since a folder comes with its first object; raises as on a disk."""
        kind = self._type()
        if kind == FILE or (kind and not exist_ok):
            raise FileExistsError(f"{self} exists")

    def rmdir(self) -> None:
        """Does nothing, since a folder goes with its last object."""

    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Opens an object for reading, as a stream."""
        if mode not in ("r", "rt", "rb"):
            raise io.UnsupportedOperation(
                f"{self}: mode {mode!r}; an object is written whole: see vlbeit_jax.places"
            )
        with explained(self):
            stream = store().open(str(self), "rb", block_size=BLOCK, cache_type="readahead")
            stream = io.BufferedReader(stream)
        return stream if "b" in mode else io.TextIOWrapper(stream, encoding, errors, newline)

    def read_bytes(self) -> bytes:
        """Returns the content of an object."""
        with explained(self):
            return store().cat_file(str(self))

    def read_text(
        self, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> str:
        """Returns the text in an object."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: Any, *, new: bool = False) -> int:
        """Writes an object, which appears whole.

        Args:
          data: its content.
          new: whether there must be none yet. Of several processes, one succeeds.

        Raises:
          FileExistsError: it is not ``new``.
          UsageError: there is no such bucket.
        """
        content = bytes(data)
        try:
            with explained(self):
                store().pipe_file(str(self), content, mode="create" if new else "overwrite")
        except FileNotFoundError as error:
            raise UsageError(f"{self}: there is no bucket {self.parts[1]!r}; make it") from error
        return len(content)

    def write_text(
        self,
        data: str,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> int:
        """Writes a text as an object, which appears whole."""
        return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes an object."""
        try:
            self.request("DELETE")
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: str | os.PathLike[str]) -> Self:
        """Copies an object or a folder within the store, and then removes it.

        If it is cut off, all of it is still here, or all of it is there.
        """
        sources = self.files() or [self]
        into = type(self)(target)
        places = [into / each.relative_to(self) if each != self else into for each in sources]
        with explained(self):
            store().copy([*map(str, sources)], [*map(str, places)], batch_size=PARALLEL)
        _remove(sources)
        return into

    def replace(self, target: str | os.PathLike[str]) -> Self:
        """As ``rename``; an object at the target is replaced."""
        return self.rename(target)

    def rmtree(self) -> None:
        """Removes every object below."""
        _remove(self.files())

    def fetch(self, to: pathlib.Path) -> None:
        """Copies an object to a file of this machine."""
        with explained(self):
            store().get_file(str(self), str(to))

    def upload(self, files: Mapping[str, pathlib.Path]) -> None:
        """Copies files of this machine into the folder, by their names there."""
        with explained(self):
            store().put(
                [*map(str, files.values())],
                [str(self / name) for name in files],
                batch_size=PARALLEL,
            )

    def request(self, method: str, action: str = "", **options: Any) -> Any:
        """Sends a request about the object, with preconditions such as ``ifGenerationMatch``.

        Raises:
          FileNotFoundError: there is no such object.
          FileExistsError: a precondition does not hold.
        """
        bucket, name = self.parts[1], "/".join(self.parts[2:])
        with explained(self):
            return store().call(method, f"b/{{}}/o/{{}}{action}", bucket, name, **options)


def _remove(paths: Sequence[BucketPath]) -> None:
    """Removes objects. The store's own ``rm`` would take a star in a name for a pattern."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(lambda path: path.unlink(missing_ok=True), paths))


def _named(name: str) -> BucketPath:
    """Returns the path of a name as the store lists it."""
    return BucketPath(f"{SCHEME}://{name.rstrip('/')}")
