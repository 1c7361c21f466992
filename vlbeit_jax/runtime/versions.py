"""Which code runs: hosts have to agree on it, and checkpoints say it."""

import hashlib
import importlib.metadata
import pathlib

import vlbeit_jax

# The packages that take part in what is computed, from the records on disk to the checkpoint.
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
    """Versions of this package, with a hash of its source files, and of the packages that it computes with."""
    source = hashlib.sha256()
    for path in sorted(pathlib.Path(vlbeit_jax.__file__).parent.rglob("*.py")):
        source.update(path.read_bytes())
    found = {"vlbeit_jax": f"{vlbeit_jax.__version__}+{source.hexdigest()[:12]}"}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}
