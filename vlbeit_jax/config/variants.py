"""Variants of a configuration file, such as ``tiny`` in ``configs/own.py:tiny``."""

from collections.abc import Sequence

from vlbeit_jax.config.nearest import spelt_like
from vlbeit_jax.errors import UsageError


def choose(name: str, variant: str, known: Sequence[str]) -> str:
    """Returns a variant that a configuration file knows.

    Args:
      name: of the configuration file, without its suffix.
      variant: as it was given.
      known: the variants of the file.

    Raises:
      UsageError: the file does not know it. The message names the nearest one, and all others.
    """
    if variant in known:
        return variant
    near = spelt_like(variant, known)
    hint = f"; did you mean {name}:{near}?" if near else "."
    raise UsageError(
        f"--config={name}:{variant}: {name} has no variant {variant!r}{hint} It has "
        f"{', '.join(known)}"
    )
