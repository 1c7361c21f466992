"""Soft targets, mixup, cutmix and erasing, against float64 statements and timm's definitions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from vlbeit_jax.models.classifier import Classifier
from vlbeit_jax.objectives.base import ROW, Context, Variables, on_one_device
from vlbeit_jax.objectives.mixing import Mixing, cutmix_box, erased, inside, mixed
from vlbeit_jax.objectives.supervised import CLASS, Supervised, smoothed, soft_cross_entropy
from vlbeit_jax.ops.patches import normalise
from vlbeit_jax.training.state import declarations
from vlbeit_jax.types import Modality

SIZE, ROWS, CLASSES = 16, 6, 5
MODEL = dataclasses.replace(tiny.SMALL, image_size=SIZE)
NETWORK = Classifier(MODEL, CLASSES, Modality.VISION, "mean")


def batch(erase=True):
    rng = np.random.default_rng(0)
    box = [[2, 3, 5, 4], [0, 0, 0, 0], [8, 8, 8, 8], [1, 1, 3, 9], [0, 0, 0, 0], [5, 0, 2, 2]]
    rows = {
        "image": rng.integers(0, 256, (ROWS, SIZE, SIZE, 3), np.uint8),
        "label": rng.integers(0, CLASSES, ROWS).astype(np.int32),
        "weight": np.array([1, 1, 0, 1, 1, 1], np.float32),
        ROW: np.arange(ROWS),
    }
    return jax.tree.map(jnp.asarray, rows | ({"erase": np.array(box, np.int32)} if erase else {}))


@pytest.fixture(scope="module")
def params():
    shapes = declarations(lambda key: NETWORK.init(key, method="init_all")["params"]).shapes
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    return tree.unflatten(
        [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )


def computed(params, rows, **settings):
    objective = Supervised(NETWORK, **settings)
    variables = Variables(params, {}, {})
    terms, statistics = on_one_device(objective, variables, rows, Context(jax.random.key(3), ()))
    assert statistics == {}
    np.testing.assert_allclose(terms[CLASS].weight, objective.weights(rows)[CLASS])
    return terms[CLASS]


def test_targets_are_those_of_timm_and_optax():
    labels = jnp.array([0, 3, 2])
    found = smoothed(labels, CLASSES, 0.1)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    off, on = 0.1 / CLASSES, 1 - 0.1 + 0.1 / CLASSES  # timm's two values.
    np.testing.assert_allclose(found[1], [off, off, off, on, off], rtol=1e-6)
    np.testing.assert_allclose(
        found, optax.smooth_labels(jax.nn.one_hot(labels, CLASSES), 0.1), rtol=1e-6
    )


def test_the_loss_is_a_weighted_sum_over_rows(params):
    rows = batch(erase=False)
    term = computed(params, rows, smoothing=0.1)
    logits = np.asarray(Supervised(NETWORK).logits(params, rows), np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = np.full((ROWS, CLASSES), 0.02)
    target[np.arange(ROWS), rows["label"]] += 0.9
    loss = -(target * log_p).sum(axis=1)
    weight = np.asarray(rows["weight"])
    assert np.ptp(loss) > 0.1
    np.testing.assert_allclose(term.loss, (loss * weight).sum(), rtol=1e-5)
    right = (logits.argmax(axis=1) == rows["label"]) * weight
    np.testing.assert_allclose(term.sums["accuracy"], right.sum())
    assert abs(float(term.loss) - loss.sum()) > 1e-2  # Control: the row of weight 0 counts.


def test_erasing_fills_boxes_with_normal_noise_that_the_row_number_decides():
    rows, key = batch(), jax.random.key(3)
    found = np.asarray(erased(rows["image"], rows["erase"], key, rows[ROW]))
    plain = np.asarray(normalise(rows["image"]))
    changed = (found != plain).any(axis=-1)
    for row, (top, left, height, width) in enumerate(np.asarray(rows["erase"])):
        wanted = np.zeros((SIZE, SIZE), bool)
        wanted[top : top + height, left : left + width] = True
        np.testing.assert_array_equal(changed[row], wanted)
    other = erased(rows["image"][::-1], rows["erase"][::-1], key, rows[ROW][::-1])
    np.testing.assert_array_equal(other, found[::-1])
    whole = jnp.tile(jnp.array([0, 0, SIZE, SIZE]), (ROWS, 1))
    noise = np.asarray(erased(rows["image"], whole, key, rows[ROW]))
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05
    assert not np.array_equal(noise[0], noise[1])


@pytest.mark.parametrize("settings", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)], ids=str)
def test_rows_are_mixed_with_the_reversed_batch(params, settings):
    rows, key, mixing = batch(), jax.random.key(3), Mixing(*settings)
    prepared = mixing.prepare(rows, key)
    share = np.asarray(prepared["mix_share"])
    assert np.ptp(share) == 0 and 0 <= share[0] <= 1
    own = np.asarray(erased(rows["image"], rows["erase"], key, rows[ROW]), np.float64)
    top, left, height, width = np.asarray(prepared["mix_box"])[0]
    if height * width or not settings[0]:  # Cutmix: the box is the reversed batch's.
        expected = own.copy()
        part = np.s_[:, top : top + height, left : left + width]
        expected[part] = own[::-1][part]
        np.testing.assert_allclose(share[0], 1 - height * width / SIZE**2, rtol=1e-6)
    else:
        expected = share[0] * own + (1 - share[0]) * own[::-1]
    partner = jnp.asarray(own[::-1], jnp.float32)
    found = mixed(jnp.asarray(own, jnp.float32), partner, prepared)
    np.testing.assert_allclose(found, expected, atol=1e-5)

    term = computed(params, rows, smoothing=0.1, mixing=mixing)
    logits = Supervised(NETWORK).logits(params, {"image": jnp.asarray(expected, jnp.float32)})
    one_hot = np.asarray(smoothed(rows["label"], CLASSES, 0.1))
    target = share[0] * one_hot + (1 - share[0]) * one_hot[::-1]
    loss = soft_cross_entropy(logits, jnp.asarray(target)) * rows["weight"]
    np.testing.assert_allclose(term.loss, loss.sum(), rtol=1e-4)
    plain = computed(params, rows, smoothing=0.1)
    assert abs(float(plain.loss - term.loss)) > 1e-3  # Control.


def test_shares_follow_their_distributions():
    rows = batch()

    def draw(mixing, count=600):
        keys = jax.random.split(jax.random.key(0), count)
        prepared = jax.vmap(lambda key: mixing.prepare(rows, key))(keys)
        return np.asarray(prepared["mix_share"])[:, 0], np.asarray(prepared["mix_box"])[:, 0]

    mixup, boxes = draw(Mixing(mixup=0.8))
    assert not boxes.any()
    # Beta(0.8, 0.8) has mean 1/2 and variance 1 / (4 (2 * 0.8 + 1)).
    assert abs(mixup.mean() - 0.5) < 0.04 and abs(mixup.var() - 1 / 10.4) < 0.01
    _, boxes = draw(Mixing(mixup=0.8, cutmix=1.0))
    assert abs((boxes[:, 2] * boxes[:, 3] > 0).mean() - 0.5) < 0.08
    _, boxes = draw(Mixing(cutmix=1.0))
    assert boxes.min() >= 0 and (boxes[:, :2] + boxes[:, 2:] <= SIZE).all()


def test_a_box_takes_its_share_and_is_cut_at_the_border():
    keys = jax.random.split(jax.random.key(1), 200)
    boxes = np.asarray(jax.vmap(lambda key: cutmix_box(jnp.float32(0.75), key, 100))(keys))
    assert boxes[:, 2:].max() == 50 and (boxes[:, 2:].max(axis=1) < 50).any()
    found = np.asarray(inside(jnp.asarray(boxes), 100))[..., 0]
    np.testing.assert_array_equal(found.sum(axis=(1, 2)), boxes[:, 2] * boxes[:, 3])


def test_the_whole_image_can_belong_to_the_partner(params):
    """With a share of 0 a row's loss is its partner's."""
    rows = batch(erase=False) | {"weight": jnp.ones(ROWS)}
    prepared = Mixing(mixup=0.8).prepare(rows, jax.random.key(0))
    zero = prepared | {"mix_share": jnp.zeros(ROWS), "mix_pixels": jnp.zeros(ROWS)}
    objective = Supervised(NETWORK, mixing=Mixing(mixup=0.8))
    context = Context(jax.random.key(3), ())
    swapped, _ = objective(Variables(params, {}, {}), zero, context)
    plain, _ = Supervised(NETWORK)(Variables(params, {}, {}), rows, context)
    np.testing.assert_allclose(swapped[CLASS].loss, plain[CLASS].loss, rtol=1e-5)
    assert float(swapped[CLASS].sums["accuracy"]) == float(plain[CLASS].sums["accuracy"])
