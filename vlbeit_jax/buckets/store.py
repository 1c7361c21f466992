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
# Orbax reads and writes with the store's client too, and with TensorStore. Nearly every other error
# of theirs says that a file is not as it was written.
CLIENTS = ("aiohttp.", "fsspec.", "gcsfs.", "google.api_core.", "google.auth.", "requests.")
AWAY = re.compile(r"\b(?:UNAVAILABLE|DEADLINE_EXCEEDED): |CURL error|retry attempts failed")
DENIED = re.compile(r"\b(?:PERMISSION_DENIED|UNAUTHENTICATED): ")
LONGEST = 300  # Characters of an error of the client.


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
        raise _told(path, error) from error


def told_of_bucket(path: object, error: BaseException, reading: bool) -> Reported | None:
    """Returns what the user is told if an error says nothing of what lies in the bucket.

    Args:
      path: that was read or written.
      error: of any library. The request has failed, after several tries, or was refused.
      reading: whether nothing but files was read; otherwise other connections may be broken.
    """
    of_client = f"{type(error).__module__}.".startswith(CLIENTS)
    of_network = reading and isinstance(error, ConnectionError | TimeoutError)
    # JAX says UNAVAILABLE of a lost process, in a RuntimeError.
    of_tensorstore = isinstance(error, ValueError) and any(
        said.search(str(error)) for said in (AWAY, DENIED)
    )
    return _told(path, error) if of_client or of_network or of_tensorstore else None


def _told(path: object, error: BaseException) -> Reported:
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}"
    if NO_ACCESS.search(said) or DENIED.search(said) or "Credentials" in type(error).__name__:
        return UsageError(
            f"{path}: access is refused ({said}); log in with "
            "gcloud auth application-default login, or give the machine's service account "
            "the role Storage Object User for this bucket"
        )
    return StorageError(
        f"{path}: the request to the bucket has failed ({said}); run the same command again when "
        "the bucket answers"
    )
