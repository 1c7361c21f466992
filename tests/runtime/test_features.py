"""Features equal what the network computes row by row, on any mesh and in any batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.runtime.features import Features
from vlbeit_jax.runtime.pretrained import open_run
from vlbeit_jax.tasks.features import BATCH, EVERY_LAYER, Pooling

TEXTS = ["a red disc", "a blue ring number 9 and many more words than a row can hold of them", ""]


@pytest.fixture(scope="module")
def run(pretrained):
    return open_run(pretrained)


def pictures(count):
    rng = np.random.default_rng(0)
    shapes, colours = tiny.SHAPES, list(tiny.COLOURS.values())
    return [tiny.drawing(rng, shapes[i % 4], colours[i // 4 % 4], side=32) for i in range(count)]


def directly(run, pooling, **rows):
    """The states of each row as they are, pooled by the definition."""
    model, pooled = run.model.task.model, []
    keep = pooling.kept(model.depth)
    backbone = Backbone(model, final_norm=pooling.final_norm and pooling.block is None)
    compute = jax.jit(lambda params, given: backbone.apply({"params": params}, given, keep=keep))
    (given,) = rows.values()
    found = compute(run.params, Inputs(**{name: jnp.asarray(x) for name, x in rows.items()}))
    for states in found.kept if pooling.block is not None else [*found.kept, found.tokens.x]:
        pooled.append([])
        for row, each in zip(given, np.asarray(states), strict=True):
            real = row != 0 if "text" in rows else np.ones(len(each), bool)
            real[0] = False
            own = each[real].astype(np.float64)
            moments = [own.mean(axis=0), np.sqrt(np.square(own - own.mean(axis=0)).mean(axis=0))]
            count = {"mean": 1, "moments": 2}
            pooled[-1].append(
                each[0] if pooling.pool == "cls" else np.concatenate(moments[: count[pooling.pool]])
            )
    return np.concatenate(pooled, axis=1)


@pytest.mark.parametrize(
    "pooling",
    [Pooling(), Pooling(final_norm=False), Pooling("cls", 1), EVERY_LAYER],
    ids=str,
)
def test_features_are_the_pooled_states(run, pooling):
    features = Features.of(run, pooling)
    images = np.stack(pictures(3))
    found = features.images([tiny.png(image) for image in images])
    depth = run.model.task.model.depth
    layers = depth + 2 if pooling.every_layer else 1
    assert found.shape == (3, 32 * layers * (2 if pooling.pool == "moments" else 1))
    assert found == pytest.approx(directly(run, pooling, image=images), abs=2e-5)
    assert found.std() > 0.01
    rows = np.stack([run.model.text.encode_row(text, 16) for text in TEXTS])
    wanted = directly(run, pooling, text=rows)
    assert features.texts(TEXTS) == pytest.approx(wanted, abs=2e-5)


def test_a_batch_that_is_not_full_changes_nothing(run):
    features = Features.of(run)
    many = [tiny.png(image) for image in pictures(BATCH + 3)]
    whole, part = features.images(many), features.images(many[BATCH:])
    assert whole.shape == (BATCH + 3, 32)
    assert whole[BATCH:] == pytest.approx(part, abs=2e-5)
    assert np.abs(whole[0] - whole[1]).max() > 1e-3  # The control: another picture.


def test_a_picture_of_another_size_is_squashed(run):
    features = Features.of(run)
    wide = np.repeat(pictures(1)[0], 2, axis=1)
    same = features.images([tiny.png(wide), tiny.png(pictures(1)[0])])
    assert same[0] == pytest.approx(same[1], abs=0.05)
    assert np.abs(features.images([tiny.png(wide)], view="crop") - same[:1]).max() > 0.05


def test_a_random_start_is_that_of_a_run_with_the_seed(run):
    one, two = (Features.of_random_start(run, seed) for seed in (0, 1))
    again = Features.of_random_start(run, 0)
    assert all(map(np.array_equal, jax.tree.leaves(one.params), jax.tree.leaves(again.params)))
    images = [tiny.png(image) for image in pictures(2)]
    assert np.abs(one.images(images) - two.images(images)).max() > 1e-3
    assert jax.tree.structure(one.params) == jax.tree.structure(run.params)


def test_a_picture_that_cannot_be_read_is_named(run):
    with pytest.raises(ValueError, match="record '1'.*not a readable image"):
        Features.of(run).images([tiny.png(pictures(1)[0]), b"no picture"])


def test_only_known_pools():
    with pytest.raises(AssertionError):
        Pooling("max")
