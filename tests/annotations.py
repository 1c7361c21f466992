"""Checks types and shapes in every annotated function of the array code.

``conftest`` switches the checks on through an import hook.
"""

from beartype import beartype

CHECKED = [f"vlbeit_jax.{name}" for name in ("ops", "metrics", "data", "models", "objectives")]
CHECKER = f"{__name__}.checked"


def checked(function):
    """Checks every function but constructors.

    JAX calls those with placeholders for the fields when it maps over a tree.
    """
    return function if function.__name__ == "__init__" else beartype(function)
