"""Rows of a large table by number, where every chip may hold a part of the table.

Within a step (``training.sharding.on_each_chip``) the table of word embeddings stays where it lies: it is the largest parameter, and a chip
looks up a few thousand rows of it. So what crosses the links is these rows and their gradients, and neither the table nor a
gradient of its size.
"""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from vlbeit_jax.shapes import Array, Float, Int

PARTED_OVER = "fsdp"


def parts() -> int:
    """Into how many equal parts a table is cut, where this is traced; 1 where the compiler cuts it, or nobody."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return mesh.shape[PARTED_OVER] if kinds.get(PARTED_OVER) == AxisType.Manual else 1


def look_up(table: Float[Array, "V D"], ids: Int[Array, "B T"], dtype: jnp.dtype) -> Float[Array, "B T D"]:
    """Rows ``ids`` in ``dtype``; ``table`` is this chip's part, of ``parts()``.

    All chips' numbers are gathered, each chip finds those that it holds, and what it found goes to who asked. Backward, gradients of
    rows go the other way, in ``dtype``, and are summed in the type of the table.
    """
    if parts() == 1:
        return jnp.take(table, ids, axis=0).astype(dtype)
    rows = table.shape[0]
    asked = jax.lax.all_gather(ids, PARTED_OVER) - jax.lax.axis_index(PARTED_OVER) * rows
    found = jnp.take(table, jnp.clip(asked, 0, rows - 1), axis=0)
    mine = (asked >= 0) & (asked < rows)
    return jax.lax.psum_scatter(jnp.where(mine[..., None], found, 0).astype(dtype), PARTED_OVER)
