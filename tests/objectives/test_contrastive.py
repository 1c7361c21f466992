"""The contrastive loss: an independent statement, several positives, and the limit of the scale."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.objectives.retrieval_batches import (
    NETWORK,
    ROWS,
    assert_same_gradients,
    context,
    in_parts,
    numbered,
    random_params,
    retrieval_batch,
    variables,
)
from vlbeit_jax.objectives.contrastive import Contrastive, Rows, clip_losses

OBJECTIVE = Contrastive(NETWORK)


@jax.jit
def losses(image, text, log_scale, picture, weight):
    """Of a whole batch."""
    rows = Rows(image, text, picture, weight)
    return clip_losses(rows, rows, log_scale)


contrast = jax.jit(Contrastive.contrast, static_argnums=0)


def unit(rng, rows, width=5):
    x = rng.normal(size=(rows, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def slow_losses(image, text, log_scale, picture, weight):
    """Row by row in float64: minus the mean log-probability of the right answers."""
    found, rows = np.zeros(len(image)), range(len(image))
    for queries, answers in ((image, text), (text, image)):
        for i in rows:
            logits = {j: np.exp(log_scale) * queries[i] @ answers[j] for j in rows if weight[j]}
            right = [j for j in logits if picture[j] == picture[i]]
            total = np.log(sum(np.exp(each) for each in logits.values()))
            if weight[i]:
                found[i] += np.mean([total - logits[j] for j in right]) / 2
    return found


@pytest.mark.parametrize("pictures", [range(8), [0, 1, 2, 0, 4, 2, 0, 7], [0] * 8], ids=str)
def test_the_loss_is_that_of_a_slow_statement(pictures):
    rng = np.random.default_rng(0)
    image, text = unit(rng, 8), unit(rng, 8)
    picture, weight = np.array(pictures, np.uint32), np.array([1, 1, 0, 1, 1, 1, 1, 1], np.float32)
    found = losses(*map(jnp.asarray, (image, text, np.float32(1.5), picture, weight)))
    expected = slow_losses(
        *(each.astype(np.float64) for each in (image, text)), 1.5, picture, weight
    )
    np.testing.assert_allclose(found.loss * weight, expected, rtol=1e-5, atol=1e-6)


def test_with_one_text_per_picture_it_is_clips():
    rng = np.random.default_rng(1)
    image, text = unit(rng, 6), unit(rng, 6)
    logits = np.exp(2.0) * image @ text.T
    own = np.diagonal(logits)
    expected = (np.log(np.exp(logits).sum(1)) + np.log(np.exp(logits).sum(0))) / 2 - own
    found = losses(
        jnp.asarray(image),
        jnp.asarray(text),
        jnp.float32(2),
        jnp.arange(6, dtype=jnp.uint32),
        jnp.ones(6),
    )
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)


def test_equal_answers_count_as_wrong():
    same = jnp.ones((4, 1))
    found = losses(
        same, same, jnp.float32(0), jnp.arange(4, dtype=jnp.uint32), jnp.array([1.0, 1, 1, 0])
    )
    assert found.correct.tolist() == [0, 0, 0, 0]
    found = losses(same, same, jnp.float32(0), jnp.zeros(4, jnp.uint32), jnp.ones(4))
    assert found.correct.tolist() == [1, 1, 1, 1]  # All are of one picture.


def test_a_batch_without_rows_that_count_has_finite_derivatives():
    batch = numbered(retrieval_batch(4) | {"weight": np.zeros(4, np.float32)})
    rng = np.random.default_rng(0)
    image, text = (jnp.asarray(unit(rng, 4)) for _ in range(2))
    entries = contrast(OBJECTIVE, variables(random_params()), batch, image, text)
    for name, value in entries.items():
        assert np.isfinite(value).all(), name
        if name != "row_scale":
            assert not np.any(value), name


@functools.cache
def direct():
    """By differentiating the loss of the whole batch."""
    rows, ctx = numbered(retrieval_batch()), context()

    def loss(params):
        image, text = OBJECTIVE.embed(variables(params), rows, ctx)
        scale = params["head"]["logit_scale"]
        found = losses(image, text, scale, rows["picture"], rows["weight"])
        return found.loss.mean()

    return jax.jit(jax.value_and_grad(loss))(random_params())


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_any_number_of_microbatches_gives_the_whole_batchs_gradient(parts):
    means, gradients = in_parts(OBJECTIVE, random_params(), retrieval_batch(), parts)
    loss, expected = direct()
    assert means["contrast"]["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert_same_gradients(gradients, expected)
    assert means["contrast"]["scale"] == pytest.approx(np.exp(2), rel=1e-6)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_large_scale_costs_the_loss_no_digits(parts):
    """The loss is that of the embeddings, however large the derivatives are."""
    params = random_params()
    params = params | {"head": {"logit_scale": jnp.float32(np.log(100))}}
    means, _ = in_parts(OBJECTIVE, params, retrieval_batch(), parts)
    batch, rows = numbered(retrieval_batch()), variables(params)
    image, text = OBJECTIVE.embed(rows, batch, context())
    first = OBJECTIVE.contrast(rows, batch, image, text)["row_loss"].sum()
    found = float(means["contrast"]["loss"] * batch["weight"].sum())
    assert found == pytest.approx(float(first), rel=2e-7)


@dataclasses.dataclass(frozen=True)
class OtherDraws(Contrastive):
    """A control: its first pass drops other values than its second."""

    def prepare(self, variables, batch, ctx, per_row):
        def with_other_draws(fn, rows):
            other = dataclasses.replace(ctx, key=jax.random.fold_in(ctx.key, 1))
            return per_row(lambda variables, rows, _: fn(variables, rows, other), rows)

        return super().prepare(variables, batch, ctx, with_other_draws)


def test_both_passes_must_make_the_same_draws():
    _, gradients = in_parts(OtherDraws(NETWORK), random_params(), retrieval_batch(), 2)
    with pytest.raises(AssertionError):
        assert_same_gradients(gradients, direct()[1])


@pytest.mark.parametrize(
    ("max_scale", "moves"), [(100.0, True), (5.0, False), (0.0, True)], ids=str
)
def test_a_scale_above_its_limit_only_falls(max_scale, moves):
    """At exp(2) = 7.4; embeddings that are all right ask for more, all wrong ones for less."""
    batch = numbered(retrieval_batch())
    objective = Contrastive(NETWORK, max_scale=max_scale)
    right = jnp.eye(ROWS)[batch["picture"]]
    for text, sign in ((right, -1), (jnp.roll(right, 1, axis=0), 1)):
        entries = contrast(objective, variables(random_params()), batch, right, text)
        found = float(entries["d_scale"].sum())
        assert np.sign(found) == (sign if moves or sign > 0 else 0)
    used = min(np.exp(2), max_scale or np.inf)
    np.testing.assert_allclose(entries["row_scale"], used, rtol=1e-6)
