"""Google Cloud Storage as a file system, and its errors as messages."""

import contextlib
import functools
import importlib
import re
from collections.abc import Iterator
from typing import Any

from vlbeit_jax.errors import Reported, StorageError, UsageError

SCHEME = "gs"
# What the server says of an account that may not do what was asked.
NO_ACCESS = re.compile(
    r"forbidden|anonymous caller|invalid credentials|unauthorized|, 401|, 403", re.IGNORECASE
)


@functools.cache
def store() -> Any:
    """Returns the file system of Google Cloud Storage, which knows nothing between two requests.

    Raises:
      UsageError: its package is not installed.
    """
    try:
        import fsspec
        from fsspec.config import conf

        importlib.import_module("gcsfs")
    except ImportError as error:
        raise UsageError(
            f"paths such as gs://bucket/name need gcsfs ({error}): "
            "python -m pip install 'vlbeit-jax[gcs]'"
        ) from error
    # Orbax and TFDS come to the same file system by another name, and must not remember either
    # what lay in a folder before.
    for name in ("gs", "gcs"):
        conf.setdefault(name, {})["use_listings_cache"] = False
    return fsspec.filesystem(SCHEME)


@contextlib.contextmanager
def explained(path: object) -> Iterator[None]:
    """Turns what the store's client raises into one message; what a file system raises, passes.

    Raises:
      UsageError: the account may not do it, or nobody is logged in.
      StorageError: the request has failed, after several tries.
    """
    try:
        yield
    except (Reported, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError):
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if NO_ACCESS.search(said) or "Credentials" in type(error).__name__:
            raise UsageError(
                f"{path}: access is refused ({said}); log in with "
                "gcloud auth application-default login, or give the machine's service account "
                "the role Storage Object User for this bucket"
            ) from error
        raise StorageError(f"{path}: the request to the bucket has failed ({said})") from error
