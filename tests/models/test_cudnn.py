"""The network with cuDNN's attention is the network without it: losses and every gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import tiny_models as tiny
from tests.models.test_scan import losses_and_gradients
from vlbeit_jax.models.multiway import with_even_length
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.ops.attention import attention_by_parts
from vlbeit_jax.ops.device import on_nvidia
from vlbeit_jax.types import Modality


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Replaces cuDNN by JAX's implementation in float32, to test the code around the call."""
    monkeypatch.setattr("vlbeit_jax.ops.cudnn_attention.IMPLEMENTATION", "xla")
    monkeypatch.setattr("vlbeit_jax.ops.attention.what_is_missing", lambda *_: "")


@pytest.mark.skipif(
    on_nvidia(),
    reason="float32, which cuDNN does not take; tests/ops/test_cudnn_attention.py is for GPUs",
)
@pytest.mark.parametrize("decoupled", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(
    "stream",
    [pytest.param(each, marks=() if each == "pair" else pytest.mark.slow) for each in tiny.STREAMS],
)
def test_losses_and_gradients_are_those_of_einsum(stream, decoupled):
    changes = {"decoupled": True, "fused_layers": 0} if decoupled else {}
    config = tiny.model_config(attention="einsum", **changes)
    params = tiny.random_params(config)
    wanted, wanted_gradients = losses_and_gradients(config, stream, params)
    found, gradients = losses_and_gradients(
        dataclasses.replace(config, attention="cudnn"), stream, params
    )
    for modality in wanted:
        np.testing.assert_allclose(found[modality], wanted[modality], rtol=2e-6)
    largest = max(np.abs(gradient).max() for gradient in wanted_gradients.values())
    for path, wanted_gradient in wanted_gradients.items():
        scale = max(
            np.abs(wanted_gradient).max(), 1e-2 * largest
        )  # Of a key's bias it is 0 but for rounding.
        # Either way is within 4e-6 of float64 (test_parity.py).
        assert np.abs(gradients[path] - wanted_gradient).max() < 8e-6 * scale, path


def test_an_odd_number_of_tokens_gets_one_that_is_not_valid():
    layout = ((Modality.VISION, 5), (Modality.LANGUAGE, 2))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 7, 4)))
    valid = jnp.arange(7) < jnp.array([[5], [6], [7]])
    for given, wanted in ((None, jnp.ones((3, 7), bool)), (valid, valid)):
        even = with_even_length(Tokens(x, given, layout))
        assert even.valid is not None
        assert even.layout == ((Modality.VISION, 5), (Modality.LANGUAGE, 3))
        np.testing.assert_array_equal(even.x[:, :7], x)
        np.testing.assert_array_equal(even.valid[:, :7], wanted)
        assert not even.x[:, 7:].any() and not even.valid[:, 7:].any()
        assert even.x.shape[1] == even.valid.shape[1] == 8
        np.testing.assert_array_equal(even.segment(Modality.VISION), x[:, :5])


def test_an_even_number_of_tokens_stays_as_it_is():
    tokens = Tokens(jnp.zeros((1, 6, 4)), None, ((Modality.VISION, 6),))
    assert with_even_length(tokens) is tokens


def test_no_block_pads_for_itself(monkeypatch):
    """Attention gets an even number of tokens, and the states have as many as there were."""
    config, lengths = tiny.model_config(attention="cudnn", image_size=8), []
    params = {"params": tiny.random_params(config)}

    def recorded(query, *others):
        lengths.append(query.shape[1])
        return attention_by_parts(query, *others)

    monkeypatch.setattr("vlbeit_jax.models.layers.attention_by_parts", recorded)
    tokens = jax.eval_shape(
        lambda inputs: VLBEiT(config).apply(params, inputs, method="encode"),
        tiny.inputs(config, "image"),
    )
    assert tokens.x.shape[1] == config.grid**2 + 1
    assert tokens.x.shape[1] % 2 == 1, "or there is nothing to pad"
    assert set(lengths) == {config.grid**2 + 2}
