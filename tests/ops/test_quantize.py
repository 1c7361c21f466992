"""The codebook: nearest codes, moving averages, k-means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlbeit_jax.ops import quantize
from vlbeit_jax.ops.quantize import (
    assigned_sums,
    ema_codebook,
    kmeans,
    l2_normalise,
    nearest_code,
    reseeded,
)

fast_kmeans = jax.jit(kmeans, static_argnums=(1, 2))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def random_units(*shape, seed=0):
    return jnp.asarray(unit(np.random.default_rng(seed).normal(size=shape)), jnp.float32)


def clusters(count, each, width=8, spread=0.05):
    """Centres at right angles, and points around them in random order."""
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(width, width)))[0][:count]
    points = unit(
        centres[rng.permutation(count * each) % count]
        + spread * rng.normal(size=(count * each, width))
    )
    return centres, jnp.asarray(points, jnp.float32)


def test_l2_normalise():
    x = np.random.default_rng(0).normal(size=(5, 4, 3))
    np.testing.assert_allclose(l2_normalise(jnp.asarray(x, jnp.float32)), unit(x), rtol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-20])
def test_l2_normalise_near_zero_is_finite(scale):
    value, gradient = jax.value_and_grad(lambda x: l2_normalise(x).sum())(scale * jnp.ones(3))
    assert abs(value) < 1e-6
    assert np.isfinite(gradient).all()


def test_nearest_code_is_nearest():
    z, codebook = random_units(50, 6), random_units(20, 6, seed=1)
    distances = np.linalg.norm(np.asarray(z, float)[:, None] - np.asarray(codebook, float), axis=-1)
    np.testing.assert_array_equal(nearest_code(z, codebook), distances.argmin(-1))


def test_nearest_code_takes_the_first_of_equals():
    codebook = random_units(6, 4)[jnp.array([3, 1, 0, 1, 0, 2])]
    assert nearest_code(codebook, codebook).tolist() == [0, 1, 2, 1, 2, 5]


def test_assigned_sums():
    z, codes, weight = (
        random_units(5, 3),
        jnp.array([2, 0, 2, 2, 0]),
        jnp.array([1.0, 1, 1, 0, 0.5]),
    )
    counts, sums = assigned_sums(z, codes, weight, 4)
    np.testing.assert_allclose(counts, [1.5, 0, 2, 0])
    np.testing.assert_allclose(
        sums, np.stack([z[1] + 0.5 * z[4], 0 * z[0], z[0] + z[2], 0 * z[0]]), atol=1e-6
    )


def test_ema_codebook():
    """As BEiT v2 states it: e = l2(decay e + (1 - decay) l2(mean of what was assigned))."""
    codebook, z = (
        np.asarray(random_units(4, 3), float),
        np.asarray(random_units(9, 3, seed=1), float),
    )
    codes = np.array([0, 2, 2, 0, 2, 2, 0, 2, 2])
    expected = codebook.copy()
    for code in (0, 2):
        expected[code] = unit(0.9 * codebook[code] + 0.1 * unit(z[codes == code].mean(0)))
    counts, sums = assigned_sums(jnp.asarray(z, jnp.float32), jnp.asarray(codes), jnp.ones(9), 4)
    found = ema_codebook(jnp.asarray(codebook, jnp.float32), counts, sums, 0.9)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_unused_codes_stay(decay):
    codebook = random_units(5, 3)
    counts, sums = assigned_sums(random_units(7, 3, seed=1), jnp.full(7, 3), jnp.ones(7), 5)
    found = codebook
    for _ in range(30):
        found = ema_codebook(found, counts, sums, decay)
    unused = np.array([0, 1, 2, 4])
    np.testing.assert_allclose(found[unused], codebook[unused], atol=1e-6)
    np.testing.assert_allclose(found[3], unit(np.asarray(sums[3])), atol=1e-5)


def test_moves_keep_unit_length_when_assignments_cancel():
    codebook, z = random_units(2, 3), random_units(1, 3, seed=1)
    counts, sums = assigned_sums(jnp.concatenate([z, -z]), jnp.zeros(2, int), jnp.ones(2), 2)
    np.testing.assert_allclose(ema_codebook(codebook, counts, sums, 0.99), codebook, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_finds_separated_clusters(seed):
    """With more codes than clusters every cluster is found, and every code is used."""
    centres, points = clusters(count=4, each=64)
    found = fast_kmeans(points, 32, 10, jax.random.key(seed))
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)
    assert len(np.unique(nearest_code(points, found))) == 32
    assert (centres @ np.asarray(found).T).max(axis=1).min() > 0.98


def test_kmeans_reaches_the_centres():
    """A start with one point of each cluster (found by trying keys) ends at the mean directions."""
    centres, points = clusters(count=3, each=50)
    label = np.asarray(points @ centres.T.astype(np.float32)).argmax(1)
    expected = np.stack([unit(np.asarray(points, float)[label == k].mean(0)) for k in range(3)])
    cosines = [
        expected @ np.asarray(fast_kmeans(points, 3, 10, jax.random.key(seed))).T
        for seed in range(20)
    ]
    best = max(cosines, key=lambda found: found.max(axis=1).min())
    np.testing.assert_allclose(best.max(axis=1), 1, atol=1e-5)
    assert sorted(best.argmax(axis=1)) == [0, 1, 2]


def test_kmeans_improves_on_its_start():
    points = random_units(400, 6)
    fits = [
        float((points @ fast_kmeans(points, 10, steps, jax.random.key(0)).T).max(axis=1).mean())
        for steps in (0, 1, 10)
    ]
    assert fits[0] < fits[1] < fits[2]


def test_kmeans_with_fewer_points_than_codes():
    points = random_units(3, 4)
    found = fast_kmeans(points, 5, 10, jax.random.key(0))
    np.testing.assert_allclose((points @ found.T).max(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("rows", [10, 64, 333, 1000])
def test_kmeans_is_the_same_in_chunks(monkeypatch, rows):
    points = random_units(333, 6)
    whole = jax.jit(lambda z: kmeans(z, 10, 5, jax.random.key(0)))(points)
    monkeypatch.setattr(quantize, "KMEANS_ROWS", rows)
    np.testing.assert_allclose(
        jax.jit(lambda z: kmeans(z, 10, 5, jax.random.key(0)))(points), whole, atol=1e-5
    )


def test_kmeans_fits_at_base_size():
    """8 batches of 512 images of 196 patches, 8192 codes: all cosines at once would be 26 GB."""
    features = jax.ShapeDtypeStruct((8 * 512 * 196, 32), jnp.float32)
    compiled = (
        jax.jit(lambda z, key: kmeans(z, 8192, 10, key))
        .lower(features, jax.random.key(0))
        .compile()
    )
    assert compiled.memory_analysis().temp_size_in_bytes < 1e9


def test_reseeded():
    codebook, candidates = random_units(4, 3), random_units(4, 3, seed=1)
    dead = np.array([False, True, False, True])
    np.testing.assert_array_equal(
        reseeded(codebook, jnp.asarray(dead), candidates),
        np.where(dead[:, None], candidates, codebook),
    )
