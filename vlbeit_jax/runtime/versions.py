"""Versions of the code that runs. Hosts must agree on them, and checkpoints record them."""

import hashlib
import importlib.metadata
import pathlib

from vlbeit_jax.version import __version__

# The packages that affect results, from the records on disk to the checkpoint.
PACKAGES = (
    "array_record",
    "flax",
    "grain",
    "jax",
    "jaxlib",
    "numpy",
    "opencv-python-headless",
    "optax",
    "orbax-checkpoint",
    "sentencepiece",
)


def versions() -> dict[str, str]:
    """Returns versions of this package, with a hash of its sources, and of ``PACKAGES``."""
    source = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parents[1].rglob("*.py")):
        source.update(path.read_bytes())
    releases = {"vlbeit_jax": f"{__version__}+{source.hexdigest()[:12]}"}
    return releases | {name: importlib.metadata.version(name) for name in PACKAGES}
