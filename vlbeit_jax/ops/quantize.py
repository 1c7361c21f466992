"""Vector quantization on the unit sphere (spec section 3.1)."""

import jax
import jax.numpy as jnp

from vlbeit_jax.shapes import Array, Bool, Float, Int

KMEANS_ROWS = 4096


def l2_normalise(x: Float[Array, "*A E"]) -> Float[Array, "*A E"]:
    """Unit vectors; zero stays zero, with finite gradients."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-12))


def nearest_code(z: Float[Array, "*A E"], codebook: Float[Array, "C E"]) -> Int[Array, "*A"]:
    """Index of the code (a unit vector) with the largest cosine; the first one on a tie."""
    return jnp.argmax(
        jnp.einsum("...e,ce->...c", z, codebook, precision=jax.lax.Precision.HIGHEST), axis=-1
    )


def assigned_sums(
    z: Float[Array, "A E"], codes: Int[Array, "A"], weight: Float[Array, "A"], count: int
) -> tuple[Float[Array, "C"], Float[Array, "C E"]]:
    """Per code: how much weight was assigned to it, and the weighted sum of what was."""
    counts = jnp.zeros(count, z.dtype).at[codes].add(weight)
    return counts, jnp.zeros((count, z.shape[-1]), z.dtype).at[codes].add(z * weight[:, None])


def ema_codebook(
    codebook: Float[Array, "C E"],
    counts: Float[Array, "C"],
    sums: Float[Array, "C E"],
    decay: float,
) -> Float[Array, "C E"]:
    """One moving-average step: codes go towards the mean direction of what they were assigned; unused ones stay."""
    centre = jnp.where(counts[:, None] > 0, l2_normalise(sums), codebook)
    return l2_normalise(decay * codebook + (1 - decay) * centre)


def kmeans(z: Float[Array, "A E"], count: int, iterations: int, key: Array) -> Float[Array, "C E"]:
    """Spherical Lloyd iterations from ``count`` distinct rows of ``z``; a code left empty keeps its place.

    Rows are compared with the codes in chunks: all at once, at base size, would take 26 GB.
    """
    start = z[jax.random.choice(key, z.shape[0], (count,), replace=z.shape[0] < count)]
    rows = min(KMEANS_ROWS, z.shape[0])
    real = jnp.pad(jnp.ones(z.shape[0]), (0, -z.shape[0] % rows)).reshape(-1, rows)
    chunks = jnp.pad(z, ((0, -z.shape[0] % rows), (0, 0))).reshape(-1, rows, z.shape[-1])

    def iterate(_, centres):
        def add(total, chunk):
            z, weight = chunk
            return jax.tree.map(
                jnp.add, total, assigned_sums(z, nearest_code(z, centres), weight, count)
            ), None

        (counts, sums), _ = jax.lax.scan(
            add, (jnp.zeros(count), jnp.zeros_like(centres)), (chunks, real)
        )
        return jnp.where(counts[:, None] > 0, l2_normalise(sums), centres)

    return jax.lax.fori_loop(0, iterations, iterate, l2_normalise(start))


def reseeded(
    codebook: Float[Array, "C E"], dead: Bool[Array, "C"], candidates: Float[Array, "C E"]
) -> Float[Array, "C E"]:
    """The codebook with dead codes replaced by candidates (one per code)."""
    return jnp.where(dead[:, None], candidates, codebook)
