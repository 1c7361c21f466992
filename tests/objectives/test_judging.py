"""Judging statements: cross-entropy, ties, both images with their types, the first values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.models.tiny_models import model_config, randomise
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.heads.reasoning import TruthHead
from vlbeit_jax.models.reasoner import Reasoner
from vlbeit_jax.objectives.base import ROW, Context, Variables
from vlbeit_jax.objectives.judging import Judging
from vlbeit_jax.types import Modality

ROWS = 4
NETWORK = Reasoner(model_config())


@dataclasses.dataclass(frozen=True)
class Given(Judging):
    """The loss of logits that are parameters."""

    def logits(self, params, batch, drop_path=None):
        return params["logits"]


def batch():
    rng = np.random.default_rng(0)
    side = NETWORK.config.image_size
    images = rng.integers(0, 256, (2, ROWS, side, side, 3), np.uint8)
    return {
        "image": jnp.asarray(images[0]),
        "second_image": jnp.asarray(images[1]),
        "text": jnp.asarray(rng.integers(5, NETWORK.config.vocabulary, (ROWS, 3)), jnp.int32),
        "truth": jnp.array([1, 0, 1, 1]),
        "weight": jnp.array([1.0, 1, 1, 0]),
        ROW: jnp.arange(ROWS),
    }


def init(key):
    return NETWORK.init(key, method="init_all")["params"]


@pytest.fixture(scope="module")
def params():
    return randomise(nn.unbox(jax.eval_shape(init, jax.random.key(0))), 0, 1.0)


def test_the_loss_is_cross_entropy_and_ties_are_wrong():
    logits = np.array([[0.5, 2.0], [0.3, 0.3], [1.0, -1.0], [5.0, -5.0]])  # The last fills up.
    given = {"logits": jnp.asarray(logits, jnp.float32)}
    terms, statistics = Given(NETWORK)(Variables(given, {}, {}), batch(), Context(key=None))
    assert not statistics
    found = terms["statement"].means()
    chosen = np.array([2.0 - 0.5, 0.0, -1.0 - 1.0])  # The right logit less the wrong one.
    assert found["loss"] == pytest.approx(np.log1p(np.exp(-chosen)).mean(), rel=1e-6)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert Given(NETWORK).weights(batch())["statement"] == terms["statement"].weight == 3


def test_the_head_reads_both_pairs_in_order_each_with_its_type(params):
    """Stated with the backbone and the head alone, one pair at a time."""
    rows = batch()
    found = jax.jit(Judging(NETWORK).logits)(params, rows)

    @jax.jit
    def by_hand(first, second, types):
        states = []
        for image, kind in ((first, types[0]), (second, types[1])):
            own = {**params, "vision_embed": {**params["vision_embed"], "type": kind}}
            encoded = Backbone(NETWORK.config).apply(
                {"params": {name: own[name] for name in own if name != "head"}},
                Inputs(image=image, text=rows["text"]),
            )
            states += [encoded.tokens.segment(modality)[:, 0] for modality in Modality]
        head = TruthHead(jnp.float32)
        return head.apply({"params": params["head"]}, jnp.concatenate(states, axis=1))

    types = [params["vision_embed"][name] for name in ("type", "second_type")]
    images = rows["image"], rows["second_image"]
    np.testing.assert_allclose(found, by_hand(*images, types), rtol=1e-4, atol=1e-5)
    for control in (by_hand(*images[::-1], types), by_hand(*images, types[:1] * 2)):
        assert np.abs(found - control).max() > 1e-3


def test_at_the_start_both_truth_values_are_equally_likely():
    tree = nn.unbox(jax.jit(init)(jax.random.key(0)))
    assert set(tree) == {"vision_embed", "text_embed", "encoder", "head"}
    for name in ("hidden", "truth"):  # BEiT-3 scales both; BEiT's values are cut at 0.02.
        kernel = np.asarray(tree["head"][name]["kernel"])
        assert 0 < np.abs(kernel).max() <= 0.02e-3
    assert np.abs(jax.jit(Judging(NETWORK).logits)(tree, batch())).max() < 1e-3


def test_drop_path_is_drawn_for_each_image_of_a_row(params):
    config = dataclasses.replace(NETWORK.config, drop_path=0.9)
    network, rows = Reasoner(config), batch()
    inputs = Inputs(image=rows["image"], second_image=rows["image"], text=rows["text"])

    shape = (ROWS, 2, config.depth, 2)
    kept = jnp.ones(shape).at[:, 1].set(0.0)  # Nothing of the first image is dropped.
    apply = jax.jit(lambda draws: network.apply({"params": params}, inputs, draws))
    logits = [apply(draws) for draws in (jnp.ones(shape), kept, jnp.zeros(shape))]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(logits[one] - logits[other]).max() > 1e-3
