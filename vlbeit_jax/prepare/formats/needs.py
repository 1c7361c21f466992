"""Libraries that only some formats need."""

import importlib
from typing import Any

from vlbeit_jax.errors import UsageError


def needed(library: str, why: str) -> Any:
    """Imports a library of the extra ``formats``.

    Args:
      library: its name.
      why: it is needed, as the beginning of a sentence.

    Raises:
      UsageError: it is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise UsageError(
            f"{why}, which needs the library {library} ({error}); install it with: "
            "pip install 'vlbeit-jax[formats]'"
        ) from error
