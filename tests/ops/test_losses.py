"""Cross-entropy against float64, and means over nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.references.vlbeit import cross_entropy as reference_cross_entropy
from vlbeit_jax.convert.reference import softmax
from vlbeit_jax.ops.losses import cross_entropy, mean, negative_log_likelihood


@pytest.mark.parametrize("scale", [0.1, 5, 500])
@pytest.mark.parametrize("never", [0, 9])
def test_cross_entropy(scale, never):
    """``never``: so many answers at the end have logit -inf."""
    rng = np.random.default_rng(0)
    logits, labels = (
        (scale * rng.normal(size=(4, 5, 20))).astype(np.float32),
        rng.integers(0, 20 - never, (4, 5)),
    )
    logits[..., 20 - never :] = -np.inf
    found = negative_log_likelihood(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(
        found,
        reference_cross_entropy(logits.astype(np.float64), labels),
        rtol=2e-6,
        atol=1e-6 * scale,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_a_smoothed_target_is_spread_over_the_other_classes_that_exist(smoothing):
    rng = np.random.default_rng(1)
    logits = 3 * rng.normal(size=(4, 5, 20)).astype(np.float32)
    logits[..., 13:] = -np.inf
    labels = rng.integers(0, 13, (4, 5))
    targets = np.full((4, 5, 13), smoothing / 12)
    np.put_along_axis(targets, labels[..., None], 1 - smoothing, axis=-1)
    shares = softmax(logits[..., :13].astype(np.float64))
    expected = -(targets * np.log(shares)).sum(-1)

    def loss(logits):
        return cross_entropy(logits, jnp.asarray(labels), smoothing).loss

    np.testing.assert_allclose(loss(jnp.asarray(logits)), expected, rtol=2e-6)
    gradient = np.asarray(jax.grad(lambda logits: loss(logits).sum())(jnp.asarray(logits)))
    np.testing.assert_allclose(gradient[..., :13], shares - targets, atol=1e-6)
    assert not gradient[..., 13:].any()
    over_all = -((targets + smoothing / 13 - smoothing / 12) * np.log(shares)).sum(-1)
    assert (np.abs(over_all - expected).max() > 1e-3) == bool(smoothing)


def test_cross_entropy_gradient():
    """Softmax minus one-hot, and zero for what can never be the answer."""
    logits = np.random.default_rng(0).normal(size=(1, 3, 7)).astype(np.float32)
    logits[..., 5:] = -np.inf
    labels = np.array([[0, 4, 2]])
    found = jax.grad(lambda x: negative_log_likelihood(x, jnp.asarray(labels)).sum())(
        jnp.asarray(logits)
    )
    np.testing.assert_allclose(
        found, softmax(logits.astype(np.float64)) - np.eye(7)[labels], atol=1e-6
    )
    assert not found[..., 5:].any()


def test_cross_entropy_gradient_is_elementwise():
    """A scatter would write zeros for all logits first, as the control does."""
    logits, labels = jnp.zeros((2, 3, 7)), jnp.zeros((2, 3), int)

    def indexed(logits):
        return -jnp.take_along_axis(logits, labels[..., None], axis=-1).sum()

    def program(loss):
        return str(jax.make_jaxpr(jax.grad(loss))(logits))

    assert "scatter" not in program(lambda x: negative_log_likelihood(x, labels).sum())
    assert "scatter" in program(indexed)


def test_cross_entropy_of_bfloat16_is_float32():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 50)), jnp.bfloat16)
    labels = np.zeros((2, 3), int)
    found = negative_log_likelihood(logits, jnp.asarray(labels))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(
        found, reference_cross_entropy(np.asarray(logits, np.float64), labels), rtol=2e-6
    )


@pytest.mark.parametrize(
    ("total", "weight", "expected"),
    [(6.0, 4.0, 1.5), (-3.0, 1.0, -3.0), (0.0, 0.0, 0.0), (1.0, 0.25, 4.0)],
)
def test_mean(total, weight, expected):
    assert mean(jnp.float32(total), jnp.float32(weight)) == expected


def test_mean_of_nothing_has_finite_gradients():
    """Every logit of an empty batch gets a gradient of zero."""
    logits, weights = jnp.ones((2, 3, 4)), jnp.zeros((2, 3))

    def loss(logits, weights):
        return mean(
            (negative_log_likelihood(logits, jnp.zeros((2, 3), int)) * weights).sum(), weights.sum()
        )

    value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(logits, weights)
    assert value == 0
    assert not gradients[0].any()
    assert np.isfinite(gradients[1]).all()


def test_mean_over_a_weight_that_is_not_a_number_is_none():
    assert jnp.isnan(mean(jnp.ones(()), jnp.full((), jnp.nan)))
