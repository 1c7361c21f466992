"""Keeps compiled steps on disk, so that a restart does not compile again."""

import hashlib
import os
import pathlib
import sys

import jax

from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import place as place_of


def use_compilation_cache(place: str) -> None:
    """Makes JAX keep what it compiles. Call it before anything is compiled.

    The user's own JAX_COMPILATION_CACHE_DIR takes precedence.

    Args:
      place: a folder; "auto" for the user's cache folder, if there is one; "" to keep nothing.

    Raises:
      UsageError: ``place`` begins with ~, but the user has no home folder.
    """
    if not place or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    if place == "auto":
        home = _user_cache()
        if home is None:  # For instance in a container that runs as an arbitrary user id.
            print(
                "this user has no writable cache folder, so compiled steps are not kept; set "
                "config.run.compilation_cache to a folder",
                file=sys.stderr,
            )
            return
        folder = home / "vlbeit_jax"
    else:
        try:
            folder = place_of(place, "config.run.compilation_cache").expanduser()
        except RuntimeError as error:
            raise UsageError(
                f"config.run.compilation_cache={place}: the user has no home folder; set HOME or "
                "give an absolute path"
            ) from error
    if jax.default_backend() == "cpu":
        folder /= _processor()
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _user_cache() -> pathlib.Path | None:
    """Returns the user's cache folder; None if there is no writable one."""
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = pathlib.Path(named) if named else pathlib.Path.home() / ".cache"
    except RuntimeError:
        return None
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return folder if existing.is_dir() and os.access(existing, os.W_OK) else None


def _processor() -> str:
    """Returns a name for the features of this processor.

    If machines share the folder, each must find only programs that its processor can run.
    """
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return "cpu-" + hashlib.sha256(features.encode()).hexdigest()[:12]
