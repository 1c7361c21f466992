"""Compiled steps on disk, so that a restart does not compile again."""

import hashlib
import os
import pathlib

import jax


def use_compilation_cache(place: str) -> None:
    """Has JAX keep what it compiles; call it before anything is compiled.

    Args:
      place: a folder; "auto": in the user's cache folder; "": nothing is kept. JAX's own JAX_COMPILATION_CACHE_DIR is left alone.
    """
    if not place or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vlbeit_jax"
    folder = (home if place == "auto" else pathlib.Path(place)).expanduser()
    if jax.default_backend() == "cpu":
        folder /= _processor()
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _processor() -> str:
    """What this processor can do, as a name: a program for another one that shares the folder could not run here."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    features = (
        next((line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features"))), "") if cpuinfo.is_file() else ""
    )
    return "cpu-" + hashlib.sha256(features.encode()).hexdigest()[:12]
