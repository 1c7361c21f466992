"""Compiled steps on disk, so that a restart does not compile again."""

import hashlib
import os
import pathlib
import sys

import jax

from vlbeit_jax.errors import UsageError


def use_compilation_cache(place: str) -> None:
    """Has JAX keep what it compiles; call it before anything is compiled.

    Args:
      place: a folder; "auto": in the user's cache folder, if the user has one; "": nothing is kept. JAX's own
        JAX_COMPILATION_CACHE_DIR is left alone.

    Raises:
      UsageError: ``place`` begins with ~, and nothing says where that is.
    """
    if not place or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    if place == "auto":
        home = _user_cache()
        if home is None:  # A container with a user of its own number, for instance.
            said = "this user has no writable cache folder: compiled steps are not kept; set config.run.compilation_cache to a folder"
            print(said, file=sys.stderr)
            return
        folder = home / "vlbeit_jax"
    else:
        try:
            folder = pathlib.Path(place).expanduser()
        except RuntimeError as error:
            raise UsageError(
                f"config.run.compilation_cache={place}: nothing says where ~ is; set HOME or give a whole path"
            ) from error
    if jax.default_backend() == "cpu":
        folder /= _processor()
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _user_cache() -> pathlib.Path | None:
    """The user's cache folder; None for a user without a home, or with one that cannot be written to."""
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = pathlib.Path(named) if named else pathlib.Path.home() / ".cache"
    except RuntimeError:
        return None
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return folder if existing.is_dir() and os.access(existing, os.W_OK) else None


def _processor() -> str:
    """What this processor can do, as a name: a program for another one that shares the folder could not run here."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    features = (
        next(
            (
                line
                for line in cpuinfo.read_text().splitlines()
                if line.startswith(("flags", "Features"))
            ),
            "",
        )
        if cpuinfo.is_file()
        else ""
    )
    return "cpu-" + hashlib.sha256(features.encode()).hexdigest()[:12]
