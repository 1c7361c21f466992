"""Cutmix's boxes and shares have the distribution that the paper and timm give them.

Cutmix (arXiv 1905.04899, section 3.1) draws the kept share from Beta(alpha, alpha). The box has the
area that is left and a uniform centre. timm, with which BEiT and BEiT-3 fine-tune, cuts the box at
the border and takes the kept share from what is left of it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest

from vlbeit_jax.objectives.mixing import Mixing, cutmix_box

SIZE, DRAWS = 224, 4000
# Two samples of this size from one distribution are this far apart once in a thousand times.
SAME = 1.95 * (2 / DRAWS) ** 0.5


@functools.cache
def drawn(alpha, draws=DRAWS):
    """Returns the kept share and the box of many steps."""
    batch = {
        "image": jnp.zeros((2, SIZE, SIZE, 3), jnp.uint8),
        "label": jnp.zeros(2, jnp.int32),
        "weight": jnp.ones(2),
    }

    def of_step(key):
        prepared = Mixing(cutmix=alpha).prepare(batch, key)
        return prepared["mix_share"][0], prepared["mix_box"][0]

    keys = jax.random.split(jax.random.key(0), draws)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(of_step))(keys))


def stated(alpha, *, corrected=True, cut=True, draws=DRAWS):
    """Returns kept shares as timm draws them, one step after the other, in float64."""
    rng, found = np.random.default_rng(1), []
    for _ in range(draws):
        kept = rng.beta(alpha, alpha)
        side = int(SIZE * np.sqrt(1 - kept))
        middle = rng.integers(SIZE), rng.integers(SIZE)
        area = 1
        for each in middle:
            low, high = each - side // 2, each + side // 2
            area *= min(high, SIZE) - max(low, 0) if cut else high - low
        found.append(1 - area / SIZE**2 if corrected else kept)
    return np.array(found)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_kept_shares_are_distributed_as_timm_draws_them(alpha):
    share, box = drawn(alpha)
    np.testing.assert_allclose(share, 1 - box[:, 2] * box[:, 3] / SIZE**2, atol=1e-6)
    assert ks_2samp(share, stated(alpha)).statistic < SAME
    others = {
        "another alpha": stated(2.5 * alpha),
        "not corrected for the border": stated(alpha, corrected=False),
        "not cut at the border": stated(alpha, cut=False),
    }
    for name, shares in others.items():  # The controls.
        assert ks_2samp(share, shares).statistic > 1.5 * SAME, name


def test_the_mean_share_for_alpha_1_is_known_in_closed_form():
    """A side of s times the image's keeps s - s^2 / 4 of it on average, and s^2 is uniform.

    The mean area is therefore the integral of 2 s (s - s^2 / 4)^2 from 0 to 1, which is 77 / 240.
    """
    share, _ = drawn(1.0)
    error = share.std() / DRAWS**0.5
    assert abs(share.mean() - (1 - 77 / 240)) < 3.3 * error + 1 / SIZE  # Sides are whole pixels.
    assert abs(share.mean() - 0.5) > 30 * error  # Control: without a border it would be a half.


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_box_that_is_not_cut_has_the_area_that_is_left_and_centres_are_uniform(kept):
    keys = jax.random.split(jax.random.key(2), DRAWS)
    draw = jax.jit(jax.vmap(lambda key: cutmix_box(jnp.float32(kept), key, SIZE)))
    top, left, height, width = np.asarray(draw(keys)).T
    half = int(SIZE * np.sqrt(1 - kept)) // 2
    assert abs((2 * half / SIZE) ** 2 - (1 - kept)) < 3 / SIZE
    assert height.max() <= 2 * half and width.max() <= 2 * half
    inner = (top > 0) & (top + height < SIZE) & (left > 0) & (left + width < SIZE)
    if half < SIZE // 2 - 1:
        assert (height[inner] == 2 * half).all() and (width[inner] == 2 * half).all()
        assert abs(inner.mean() - (1 - 2 * half / SIZE) ** 2) < 0.04
    for low, length in ((top, height), (left, width)):
        # A box that touches a border hides its centre's distance, but not on which side it is.
        centre = np.where(low > 0, low + half, low + length - half)
        uniform = (centre + np.random.default_rng(0).random(DRAWS)) / SIZE
        known = (low > 0) | (low + length < SIZE)
        assert known.mean() > 0.99 and kstest(uniform[known], "uniform").pvalue > 1e-3
        assert kstest(uniform[known] ** 1.2, "uniform").pvalue < 1e-3  # Control.
