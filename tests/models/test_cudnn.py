"""The network with cuDNN's attention is the network without it: losses and every gradient."""

import dataclasses

import numpy as np
import pytest

from tests.models import tiny_models as tiny
from tests.models.test_scan import losses_and_gradients
from tests.models.test_vlbeit import every_stream
from vlbeit_jax.ops.device import on_nvidia


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Replaces cuDNN by JAX's implementation in float32, to test the code around the call."""
    monkeypatch.setattr("vlbeit_jax.ops.cudnn_attention.IMPLEMENTATION", "xla")
    monkeypatch.setattr("vlbeit_jax.ops.attention.what_is_missing", lambda *_: "")


@pytest.mark.skipif(
    on_nvidia(),
    reason="float32, which cuDNN does not take; tests/ops/test_cudnn_attention.py is for GPUs",
)
@pytest.mark.parametrize("decoupled", [False, True])
@every_stream
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
