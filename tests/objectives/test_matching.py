"""Matching: which wrong partners are drawn, what counts, and gradients in microbatches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.objectives.retrieval_batches import (
    NETWORK,
    ROWS,
    WORDS,
    assert_same_gradients,
    context,
    in_parts,
    numbered,
    random_params,
    retrieval_batch,
    variables,
)
from vlbeit_jax.objectives import contrastive, matching
from vlbeit_jax.objectives.base import on_one_device, uniform_per_row
from vlbeit_jax.objectives.contrastive import Contrastive
from vlbeit_jax.objectives.matching import ContrastiveAndMatching

WHOLE, GROUPS = ContrastiveAndMatching(NETWORK), ContrastiveAndMatching(NETWORK, negatives_among=4)


@functools.partial(jax.jit, static_argnums=0)
def prepared(objective, batch):
    fixed, ctx = variables(random_params()), context()
    rows = numbered(batch)
    return objective.prepare(fixed, rows, ctx, lambda fn, rows: fn(fixed, rows, ctx))


@functools.partial(jax.jit, static_argnums=0)
def terms_of(objective, batch):
    """Prepared and summed over all rows."""
    return on_one_device(objective, variables(random_params()), numbered(batch), context())[0]


def partners(batch, found):
    """The row that each wrong text and each wrong image is of."""
    numbers = {}
    for name in ("text", "image"):
        same = (found[f"wrong_{name}"][:, None] == batch[name]).reshape(
            *(2 * (len(batch[name]),)), -1
        )
        numbers[name] = np.argmax(same.all(axis=2), axis=1)
        assert same.all(axis=2).any(axis=1).all()  # Each is a row of the batch.
    return numbers


@pytest.mark.parametrize(
    ("objective", "group"), [(WHOLE, ROWS), (GROUPS, 4)], ids=["whole", "groups"]
)
def test_wrong_partners_are_of_other_pictures_and_of_the_group(objective, group):
    batch = retrieval_batch(pictures=[0, 0, 1, 2] + list(range(3, 15)))
    batch["weight"][5] = 0
    found = partners(batch, prepared(objective, batch))
    for name, numbers in found.items():
        assert (batch["picture"][numbers] != batch["picture"]).all(), name
        assert (numbers // group == np.arange(ROWS) // group).all(), name
        assert 5 not in numbers
        assert len(set(numbers.tolist())) > 3


def test_partners_are_drawn_as_often_as_they_are_similar():
    rng = np.random.default_rng(0)
    logits, draws = rng.normal(size=(1, 5, 5)) * 2, 20_000
    allowed = ~np.eye(5, dtype=bool)[None]
    allowed[0, 2, 4] = False
    uniform = jnp.asarray(rng.random((draws, 1, 5, 5)), jnp.float32)
    draw = jax.jit(jax.vmap(matching._draw, in_axes=(None, None, 0)))
    drawn = np.asarray(draw(jnp.asarray(logits, jnp.float32), jnp.asarray(allowed), uniform))[:, 0]
    for row in range(5):
        shares = np.where(allowed[0, row], np.exp(logits[0, row]), 0)
        shares = np.where(allowed[0, row], shares / shares.sum() + 1e-4, 0)
        found = np.bincount(drawn[:, row], minlength=5) / draws
        np.testing.assert_allclose(found, shares / shares.sum(), atol=0.012)


def test_partners_and_the_matching_pass_have_draws_of_their_own(monkeypatch):
    """Not those of drop path in the embeddings, which the same key and rows would give."""
    keys = []

    def recorded(key, *others):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        return uniform_per_row(key, *others)

    for module in (matching, contrastive):
        monkeypatch.setattr(module, "uniform_per_row", recorded)
    rows = numbered(retrieval_batch(4))
    on_one_device(WHOLE, variables(random_params()), rows, context())
    assert len(keys) >= 3 and len(set(keys)) == 3


@pytest.mark.parametrize(
    ("batch", "weight"),
    [
        (retrieval_batch(4), 12),
        (retrieval_batch(1), 1),  # No other row.
        (retrieval_batch(4, pictures=[7] * 4), 4),  # No other picture.
        (retrieval_batch(4, pictures=[7, 7, 7, 8]), 12),
    ],
    ids=["four", "one row", "one picture", "two pictures"],
)
def test_rows_without_wrong_partners_count_their_own_pair_alone(batch, weight):
    terms = terms_of(WHOLE, batch)
    assert terms["matching"].weight == weight == WHOLE.weights(numbered(batch))["matching"]
    assert all(np.isfinite(value) for term in terms.values() for value in term.means().values())


def test_the_loss_is_cross_entropy_over_three_pairs_of_a_row():
    """Without drop path, in float64, from the partners that were drawn."""
    still = NETWORK.clone(config=NETWORK.config._replace(drop_path=0.0))
    objective, batch = ContrastiveAndMatching(still), retrieval_batch(6, seed=2)
    rows, losses, pair = prepared(objective, batch), [], np.float64(random_params()["pair"])
    for image, text, target in (
        ("image", "text", 1),
        ("image", "wrong_text", 0),
        ("wrong_image", "text", 0),
    ):
        pixels = np.float64(rows[image]).reshape(6, -1) / 127.5 - 1
        logits = np.concatenate([pixels, np.float64(rows[text]) / WORDS - 0.5], axis=1) @ pair
        total = np.log(np.exp(logits).sum(axis=1))
        losses += list(total - logits[:, target])
    found = terms_of(objective, batch)["matching"].means()
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("objective", [WHOLE, GROUPS], ids=["whole", "groups"])
def test_any_number_of_microbatches_gives_the_same_gradients(objective):
    batch, params = retrieval_batch(), random_params()
    means, gradients = in_parts(objective, params, batch, 1)
    for parts in (2, 4):
        others = in_parts(objective, params, batch, parts)
        assert_same_gradients(others[1], gradients)
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5), others[0], means
        )
    alone, without = in_parts(Contrastive(NETWORK), params, batch, 1)
    assert alone["contrast"]["loss"] == pytest.approx(float(means["contrast"]["loss"]), rel=1e-6)
    assert jnp.abs(gradients["pair"]).max() > 0 and not jnp.abs(without["pair"]).max()


def test_groups_must_divide_the_batch():
    with pytest.raises(AssertionError, match="16 rows are no multiple of negatives_among=5"):
        prepared(dataclasses.replace(GROUPS, negatives_among=5), retrieval_batch())
