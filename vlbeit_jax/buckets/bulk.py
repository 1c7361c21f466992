"""Many objects at a time: requests that do not wait for each other."""

import pathlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from vlbeit_jax.buckets.path import PARALLEL, BucketPath
from vlbeit_jax.buckets.store import explained, store


def download(folder: BucketPath, wanted: Iterable[BucketPath], to: pathlib.Path) -> None:
    """Copies objects below a folder into a folder of this machine.

    Raises:
      FileNotFoundError: one of them does not exist.
    """
    targets = {str(each): to / each.relative_to(folder) for each in wanted}
    for path in targets.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    if targets:
        with explained(folder):
            store().get([*targets], [*map(str, targets.values())], batch_size=PARALLEL)


def contents(folder: BucketPath, pattern: str) -> dict[str, bytes]:
    """Returns the contents of the objects in a folder whose names have a pattern, by name."""
    paths = list(folder.glob(pattern))
    with ThreadPoolExecutor(PARALLEL) as pool:
        content = pool.map(BucketPath.read_bytes, paths)
        return {path.name: each for path, each in zip(paths, content, strict=True)}


def bytes_below(folder: BucketPath) -> int:
    """Returns the size of every object below, by one request for a thousand of them."""
    with explained(folder):
        return sum(each["size"] for each in store().find(str(folder), detail=True).values())


def copy(targets: Mapping[BucketPath, BucketPath]) -> None:
    """Copies objects within the store, whatever their sizes."""
    if targets:
        with explained(next(iter(targets))):
            store().copy([*map(str, targets)], [*map(str, targets.values())], batch_size=PARALLEL)
