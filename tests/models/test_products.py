"""Every matmul of the trained network, forward and backward, has the configured operand type."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import tiny_models as tiny
from vlbeit_jax.models import layers
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.types import Positions


def products(jaxpr):
    """The types of both sides of every matrix product, in nested functions too."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append({str(each.aval.dtype) for each in equation.invars})
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            found += products(inner)
    return found


def of_a_gradient(stream, positions=Positions.ABSOLUTE, **changes):
    config = tiny.model_config(positions, attention="einsum", **changes)
    inputs = tiny.inputs(config, stream)

    def loss(params):
        return sum(
            jnp.square(logits).mean()
            for logits in VLBEiT(config).apply({"params": params}, inputs, method="logits").values()
        )

    return products(jax.make_jaxpr(jax.grad(loss))(tiny.random_params(config)).jaxpr)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("stream", "positions"),
    [(stream, Positions.ABSOLUTE) for stream in tiny.STREAMS] + [("pair", Positions.RELATIVE)],
)
def test_every_product_takes_the_type_of_the_configuration(stream, positions, dtype):
    found = of_a_gradient(stream, positions, matmul=dtype)
    assert len(found) > 3 * 3 * 6 and all(
        types == {dtype} for types in found
    )  # Three blocks of six, and their gradients.


def test_a_float32_gradient_of_logits_would_be_noticed(monkeypatch):
    monkeypatch.setattr(
        layers,
        "einsum_to_float32",
        lambda spec, a, b, _: jnp.einsum(spec, a, b, preferred_element_type=jnp.float32),
    )
    assert {"float32", "bfloat16"} in of_a_gradient("image", matmul="bfloat16")


@pytest.mark.parametrize("exact", [False, True])
def test_rows_that_stay_as_they_are_give_what_one_matrix_gives(monkeypatch, exact):
    """How products are written for a TPU, and for all else."""
    x, kernel, change = (
        jax.random.normal(jax.random.key(seed), shape)
        for seed, shape in enumerate([(3, 5, 16), (16, 24), (3, 5, 24)])
    )

    def values_and_gradients(tpu):
        monkeypatch.setattr(layers, "on_tpu", lambda: tpu)
        found, backward = jax.vjp(lambda *given: layers.matmul(*given, exact), x, kernel)
        return found, *backward(change)

    text = str(jax.make_jaxpr(lambda: values_and_gradients(True))())
    assert "f32[3,5,24] = dot_general" in text and "f32[15,24] = dot_general" not in text
    for one, other in zip(values_and_gradients(True), values_and_gradients(False), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
