"""Checks of types and shapes on every annotated function of the array code, switched on by ``conftest`` through an import hook."""

from beartype import beartype

CHECKED = [f"vlbeit_jax.{name}" for name in ("ops", "metrics", "data", "models", "objectives")]
CHECKER = f"{__name__}.checked"


def checked(function):
    """JAX fills the fields of its trees with placeholders when it maps over them, so constructors are left alone."""
    return function if function.__name__ == "__init__" else beartype(function)
