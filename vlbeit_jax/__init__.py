"""VL-BEiT in JAX: one Multiway Transformer pretrained by masked prediction (arXiv 2206.01127).

import vlbeit_jax
model = vlbeit_jax.load("sample_run/pretrain")
vectors = model.encode(images=["cat.jpg"]).image
"""

from typing import TYPE_CHECKING, Any

from vlbeit_jax.version import __version__

if TYPE_CHECKING:
    from vlbeit_jax.api.load import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """Imports JAX only when a model is loaded."""
    if name == "load":
        from vlbeit_jax.api.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
