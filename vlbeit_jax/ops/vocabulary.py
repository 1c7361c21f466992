"""Collectives of a vocabulary that is sharded over devices.

The word table and the head of word pieces are the largest parameters. A device looks up a few
thousand words and predicts a few hundred, so inside the per-chip part of a step
(``training.per_chip``) both stay where they are. The rows, states and gradients of those words
cross the links; a table, or a gradient of its size, never does.

``parts`` is the number of devices that the vocabulary is split over. With 1 part nothing is sent.
"""

import jax
import jax.numpy as jnp

from vlbeit_jax.ops.losses import Prediction, cross_entropy, smoothed_loss, sum_of_logits
from vlbeit_jax.shapes import Array, Float, Int

VOCABULARY_AXIS = "fsdp"  # The mesh axis that the vocabulary is split over.


def local_words(count: int, parts: int) -> Int[Array, " N"]:
    """Returns the vocabulary indices of the ``count`` words that this device holds."""
    first = jax.lax.axis_index(VOCABULARY_AXIS) * count if parts > 1 else 0
    return first + jnp.arange(count)


def gather_rows(x: Array, parts: int) -> Array:
    """Concatenates ``x`` of all devices that hold a part, along the first axis."""
    return x if parts == 1 else jax.lax.all_gather(x, VOCABULARY_AXIS, tiled=True)


def vocab_parallel_cross_entropy(
    logits: Float[Array, "R M V"], targets: Int[Array, "B M"], parts: int, smoothing: float = 0.0
) -> Prediction:
    """Returns loss and correctness of this device's rows.

    The gradient is that of the sum over devices of each device's losses.

    Args:
      logits: of all devices' rows (``gather_rows``) and of the words that this device holds.
      targets: of this device's rows.
      parts: devices that the vocabulary is split over.
      smoothing: as in ``cross_entropy``.
    """
    if parts == 1:
        return cross_entropy(logits, targets, smoothing)
    # Every device needs every row's target, to find those that lie in its part.
    targets, words = gather_rows(targets, parts), local_words(logits.shape[-1], parts)
    # The largest logit of each row over all devices keeps exp() finite. It cancels in the loss, so
    # it needs no gradient.
    local_largest = jax.lax.stop_gradient(logits).max(axis=-1)
    largest = jax.lax.pmax(local_largest, VOCABULARY_AXIS)
    # The argmax over the whole vocabulary: the lowest index among the devices that hold the largest
    # logit. A device without it offers an index behind the last word.
    local_argmax = words[0] + jnp.argmax(logits, axis=-1)
    behind = logits.shape[-1] * parts
    argmax = jax.lax.pmin(
        jnp.where(local_largest == largest, local_argmax, behind), VOCABULARY_AXIS
    )
    shifted = logits - largest[..., None]
    of_target = jnp.where(targets[..., None] == words, shifted, 0).sum(axis=-1)
    # All devices hold the same argmax. Each contributes 1 / parts, so that the reduce-scatter below
    # adds up to 1.
    correct = (argmax == targets) / parts
    sums = [jnp.exp(shifted).sum(axis=-1), of_target, correct]
    if smoothing:
        sums += sum_of_logits(shifted)
    # One reduce-scatter adds the parts and returns each row's sums to the device of that row.
    sums = jax.lax.psum_scatter(jnp.stack(sums, axis=1), VOCABULARY_AXIS, tiled=True)
    partition, of_target, correct, *of_all = jnp.moveaxis(sums, 1, 0)
    normaliser = jnp.log(partition)
    loss = normaliser - of_target
    if smoothing:
        total, count = of_all
        loss = smoothed_loss(loss, count * normaliser - total, count, smoothing)
    return Prediction(loss, correct > 0.5)


def look_up(
    table: Float[Array, "V D"], ids: Int[Array, "B T"], dtype: jnp.dtype, parts: int
) -> Float[Array, "B T D"]:
    """Returns rows ``ids`` of a table, in ``dtype``.

    The gradient of the rows returns to their device in ``dtype`` and is summed in the table's type.

    Args:
      table: the part that this device holds.
      ids: of this device's rows, within the whole vocabulary.
      dtype: of the result.
      parts: devices that the table is split over.
    """
    if parts == 1:
        return jnp.take(table, ids, axis=0).astype(dtype)
    # Every device gathers all ids and finds those that it holds. The others are 0, so that the
    # reduce-scatter returns exactly one row for each id.
    rows = table.shape[0]
    local = jax.lax.all_gather(ids, VOCABULARY_AXIS) - jax.lax.axis_index(VOCABULARY_AXIS) * rows
    embeddings = jnp.take(table, jnp.clip(local, 0, rows - 1), axis=0)
    held = (local >= 0) & (local < rows)
    return jax.lax.psum_scatter(
        jnp.where(held[..., None], embeddings, 0).astype(dtype), VOCABULARY_AXIS
    )
