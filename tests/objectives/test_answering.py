"""Question answering: soft targets, loss summed over answers, and what does not count."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.models.tiny_models import model_config
from vlbeit_jax.models.vqa import VQA
from vlbeit_jax.objectives.answering import Answering, dense_targets
from vlbeit_jax.objectives.base import Context, Variables

ANSWERS, ROWS = 5, 4
NETWORK = VQA(model_config(), ANSWERS)


@dataclasses.dataclass(frozen=True)
class Given(Answering):
    """The loss of logits that are parameters."""

    def logits(self, params, batch, drop_path=None):
        return params["logits"]


def batch():
    return {
        "image": jnp.zeros((ROWS, 12, 12, 3), jnp.uint8),
        "text": jnp.ones((ROWS, 3), jnp.int32),
        "answers": jnp.array([[1, 3, 0], [2, 0, 0], [0, 0, 0], [4, 1, 0]]),
        "scores": jnp.array([[0.3, 1, 0], [0.9, 0, 0], [0, 0, 0], [1, 0.6, 0]]),
        "weight": jnp.array([1.0, 1, 1, 0]),
    }


def test_targets_are_scores_by_answer():
    found = dense_targets(batch()["answers"], batch()["scores"], ANSWERS)
    expected = [[0, 0.3, 0, 1, 0], [0, 0, 0.9, 0, 0], [0] * 5, [0, 0.6, 0, 0, 1]]
    np.testing.assert_allclose(found, np.float32(expected))


def test_the_loss_is_summed_over_answers_and_averaged_over_questions():
    """Row 2 has no answer of the list, row 3 fills up the batch: neither counts."""
    logits = np.random.default_rng(0).normal(size=(ROWS, ANSWERS)) * 3
    logits[0, 1] = 9.0  # The most likely answer, which 1 person gave.
    logits[1, 4] = 9.0
    params = {"logits": jnp.asarray(logits, jnp.float32)}
    rows, variables = batch(), Variables(params, {}, {})
    terms, statistics = Given(NETWORK)(variables, rows, Context(key=None))
    assert not statistics
    share = 1 / (1 + np.exp(-logits))
    targets = np.asarray(dense_targets(rows["answers"], rows["scores"], ANSWERS), np.float64)
    loss = -(targets * np.log(share) + (1 - targets) * np.log(1 - share))
    found = terms["answer"].means()
    assert found["loss"] == pytest.approx(loss[:2].sum(axis=1).mean(), rel=1e-5)
    assert found["accuracy"] == pytest.approx(0.15)
    assert Given(NETWORK).weights(rows)["answer"] == terms["answer"].weight == 2


def test_large_logits_have_a_finite_loss():
    logits = jnp.full((ROWS, ANSWERS), 1e4) * jnp.array([1, -1, 1, -1, 1])
    terms, _ = Given(NETWORK)(Variables({"logits": logits}, {}, {}), batch(), Context(key=None))
    # A score of s costs (1 - s) or s times the logit. Row 0: 3, 0.3 and 1; row 1: 3 less 0.9.
    assert terms["answer"].loss == pytest.approx(1e4 * (3 + 0.3 + 1 + 3 - 0.9), rel=1e-6)


def test_the_network_has_its_own_pooler_and_no_other_head():
    params = nn.unbox(jax.eval_shape(init, jax.random.key(0)))
    assert set(params) == {"vision_embed", "text_embed", "encoder", "pooler", "head"}
    assert "norm" not in params["encoder"]
    found = jax.eval_shape(Answering(NETWORK).logits, params, batch())
    assert found.shape == (ROWS, ANSWERS) and found.dtype == jnp.float32


def init(key):
    return NETWORK.init(key, method="init_all")["params"]
