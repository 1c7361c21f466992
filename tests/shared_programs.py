"""A folder of compiled programs that several processes write to at once.

JAX writes a program under its name at once, so that another process may read half of it.
"""

import os
import pathlib
import tempfile

from jax._src import lru_cache


def write_whole_programs() -> None:
    """Makes JAX give a compiled program its name when it is written."""
    lru_cache.LRUCache.put = _put


def _put(cache: lru_cache.LRUCache, key: str, value: bytes) -> None:
    folder = pathlib.Path(str(cache.path))
    number, part = tempfile.mkstemp(dir=folder, prefix=".part_")
    with os.fdopen(number, "wb") as out:
        out.write(value)
    os.replace(part, folder / f"{key}{lru_cache._CACHE_SUFFIX}")
