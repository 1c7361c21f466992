"""Vector quantisation on the unit sphere (BEiT v2).

Features and codes are unit vectors, so the nearest code is the one with the largest cosine.
"""

import jax
import jax.numpy as jnp

from vlbeit_jax.shapes import Array, Bool, Float, Int

KMEANS_ROWS = 4096  # Rows of features that k-means compares with the codes at once.


def l2_normalise(x: Float[Array, "*A E"]) -> Float[Array, "*A E"]:
    """Scales vectors to length 1. A zero vector stays zero, and its gradient is finite."""
    # The norm is bounded inside of the square root: a bound outside would leave its gradient at
    # zero infinite.
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-12))


def nearest_code(z: Float[Array, "*A E"], codebook: Float[Array, "C E"]) -> Int[Array, "*A"]:
    """Returns the index of the code with the largest cosine; on a tie, the first."""
    # In full float32: by default, TPUs round the operands to bfloat16, and then another code can
    # win, depending on the device.
    cosines = jnp.einsum("...e,ce->...c", z, codebook, precision=jax.lax.Precision.HIGHEST)
    return jnp.argmax(cosines, axis=-1)


def assigned_sums(
    z: Float[Array, "A E"], codes: Int[Array, " A"], weight: Float[Array, " A"], count: int
) -> tuple[Float[Array, " C"], Float[Array, "C E"]]:
    """Returns sums of the assigned features by code.

    Args:
      z: features.
      codes: the code of each feature, in [0, count).
      weight: of each feature; 0 for rows that pad a batch.
      count: number of codes C.

    Returns:
      The weight assigned to each code, and the weighted sum of its features.
    """
    # Scattered: as products, both would need a matrix with a number for each feature and code.
    counts = jnp.zeros(count, z.dtype).at[codes].add(weight)
    sums = jnp.zeros((count, z.shape[-1]), z.dtype).at[codes].add(z * weight[:, None])
    return counts, sums


def ema_codebook(
    codebook: Float[Array, "C E"],
    counts: Float[Array, " C"],
    sums: Float[Array, "C E"],
    decay: float,
) -> Float[Array, "C E"]:
    """Moves the codes towards their features: an exponential moving average (BEiT v2).

    Args:
      codebook: codes, unit vectors.
      counts: weight assigned to each code in this step, over all devices.
      sums: sum of each code's features.
      decay: how much of the old code remains, in [0, 1].
    """
    # The direction of the sum is that of the mean. A code without features is its own target, so
    # that the average leaves it where it is.
    centre = jnp.where(counts[:, None] > 0, l2_normalise(sums), codebook)
    return l2_normalise(decay * codebook + (1 - decay) * centre)


def kmeans(z: Float[Array, "A E"], count: int, iterations: int, key: Array) -> Float[Array, "C E"]:
    """Clusters features by spherical k-means (Lloyd's iterations) and returns the centres.

    Args:
      z: features, unit vectors.
      count: number of centres C. They start at distinct rows of ``z``, if there are enough.
      iterations: rounds of assigning and averaging. A centre without features stays where it is.
      key: draws the starting rows.
    """
    features = z.shape[0]
    # Distinct rows, unless there are fewer rows than centres.
    start = z[jax.random.choice(key, features, (count,), replace=features < count)]
    # Rows are compared with the centres in chunks: at base size, the cosines of all of them would
    # take 26 GB. Rows that fill up the last chunk have weight 0.
    rows = min(KMEANS_ROWS, features)
    padding = -features % rows
    real = jnp.pad(jnp.ones(features), (0, padding)).reshape(-1, rows)
    chunks = jnp.pad(z, ((0, padding), (0, 0))).reshape(-1, rows, z.shape[-1])

    def iterate(_, centres):
        def add(total, chunk):
            z, weight = chunk
            assigned = assigned_sums(z, nearest_code(z, centres), weight, count)
            return jax.tree.map(jnp.add, total, assigned), None

        nothing = (jnp.zeros(count), jnp.zeros_like(centres))
        (counts, sums), _ = jax.lax.scan(add, nothing, (chunks, real))
        return jnp.where(counts[:, None] > 0, l2_normalise(sums), centres)

    return jax.lax.fori_loop(0, iterations, iterate, l2_normalise(start))


def reseeded(
    codebook: Float[Array, "C E"], dead: Bool[Array, " C"], candidates: Float[Array, "C E"]
) -> Float[Array, "C E"]:
    """Replaces dead codes by candidates, one per code."""
    return jnp.where(dead[:, None], candidates, codebook)
