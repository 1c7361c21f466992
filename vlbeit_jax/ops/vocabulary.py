"""The vocabulary cut over chips: word embeddings looked up, and word pieces predicted, where their parameters lie.

Within a step (``training.sharding.on_each_chip``) both tables stay: they are the largest parameters, and a chip has a few thousand words
to look up and a few hundred to predict. So what crosses the links is these words' rows and states and their gradients, and
neither a table nor a gradient of its size.
"""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from vlbeit_jax.ops.losses import Grades, grade
from vlbeit_jax.shapes import Array, Float, Int

PARTED_OVER = "fsdp"


def parts() -> int:
    """Into how many equal parts a table is cut, where this is traced; 1 where the compiler cuts it, or nobody."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return mesh.shape[PARTED_OVER] if kinds.get(PARTED_OVER) == AxisType.Manual else 1


def numbers(count: int) -> Int[Array, "N"]:
    """Numbers within the vocabulary of the ``count`` words whose rows lie on this chip."""
    first = jax.lax.axis_index(PARTED_OVER) * count if parts() > 1 else 0
    return first + jnp.arange(count)


def for_all_parts(x: Array) -> Array:
    """``x`` of every chip that holds a part, one below the other."""
    return x if parts() == 1 else jax.lax.all_gather(x, PARTED_OVER, tiled=True)


def grade_parts(logits: Float[Array, "R M V"], targets: Int[Array, "B M"]) -> Grades:
    """Grades of this chip's rows; ``logits`` are of all chips' rows (``for_all_parts``) and of the words that lie here.

    Every chip sums what it has of every row, and the sums go to whose row it is. Gradients come back the same way, so that the
    loss to derive is the sum over chips of each one's rows.
    """
    if parts() == 1:
        return grade(logits, targets)
    asked, here, total = (
        for_all_parts(targets),
        numbers(logits.shape[-1]),
        logits.shape[-1] * parts(),
    )
    largest_here = jax.lax.stop_gradient(logits).max(axis=-1)
    largest = jax.lax.pmax(largest_here, PARTED_OVER)
    choice = jax.lax.pmin(
        jnp.where(largest_here == largest, here[0] + jnp.argmax(logits, axis=-1), total),
        PARTED_OVER,
    )
    shifted = logits - largest[..., None]
    of_target = jnp.where(asked[..., None] == here, shifted, 0).sum(axis=-1)
    # The choice is known to all, so that a share of it from each makes 1.
    sums = jnp.stack(
        [jnp.exp(shifted).sum(axis=-1), of_target, (choice == asked) / parts()], axis=1
    )
    likelihood, of_target, right = jnp.moveaxis(
        jax.lax.psum_scatter(sums, PARTED_OVER, tiled=True), 1, 0
    )
    return Grades(jnp.log(likelihood) - of_target, right > 0.5)


def look_up(
    table: Float[Array, "V D"], ids: Int[Array, "B T"], dtype: jnp.dtype
) -> Float[Array, "B T D"]:
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
