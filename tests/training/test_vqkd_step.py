"""VQ-KD in the train step: microbatches and devices move the codebook alike, and it is guarded."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tests.training.linear import bits
from tests.training.test_golden import vqkd
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.ops.quantize import l2_normalise
from vlbeit_jax.runtime.synthetic import random_batches
from vlbeit_jax.tasks.abstract import abstract_step

ONE, EIGHT = (1, 1, 1), (4, 2, 1)


def start(shape, accumulate):
    """A step on a mesh, its state with random codes, and a batch."""
    config = vqkd()
    config = dataclasses.replace(
        config,
        mesh=MeshConfig(data=shape[0], fsdp=shape[1], tensor=shape[2]),
        run=dataclasses.replace(config.run, accumulate=accumulate),
    )
    step, make_state, abstract, _, batches = abstract_step(config, tiny.mesh_of(*shape))
    state = make_state(0)
    zeros = state.model_state["image"]
    codes = l2_normalise(jax.random.normal(jax.random.key(1), zeros["codebook"].shape))
    place = abstract.model_state["image"]["codebook"].sharding
    model_state = {"image": zeros | {"codebook": jax.device_put(codes, place)}}
    state = dataclasses.replace(state, model_state=model_state)
    return step, state, random_batches(config, batches, 0)


@pytest.fixture(scope="module")
def on_eight():
    """One step on eight devices with two microbatches: the step, and what it leaves."""
    step, state, rows = start(EIGHT, 2)
    codebook = np.asarray(state.model_state["image"]["codebook"])
    state, metrics = step(state, {}, rows)
    return step, state, jax.device_get(metrics), rows, codebook


def test_two_microbatches_on_eight_devices_change_nothing(on_eight):
    _, found, found_metrics, _, before = on_eight
    step, state, rows = start(ONE, 1)
    wanted, metrics = step(state, {}, rows)
    for name, value in metrics.items():
        np.testing.assert_allclose(found_metrics[name], value, rtol=1e-4, err_msg=name)
    found, wanted = (jax.device_get(each.model_state["image"]) for each in (found, wanted))
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
    assert np.abs(wanted["codebook"] - before).max() > 1e-3  # The control: it moves.


def test_a_bad_row_leaves_the_codebook_alone(on_eight):
    step, state, _, rows, _ = on_eight
    state = jax.tree.map(jnp.copy, state)  # The step donates what it is given.
    before, codes = bits(state), bits(state, ["model_state"])
    weight = rows["image"]["weight"]
    spoilt = jax.device_put(weight.at[5].set(jnp.nan), weight.sharding)
    state, metrics = step(state, {}, {"image": {**rows["image"], "weight": spoilt}})
    assert int(metrics["refused"]) == 1 and int(state.refused) == 1 and int(state.step) == 2
    assert bits(state) == before
    state, metrics = step(state, {}, rows)  # The control: a good step moves it.
    assert int(metrics["refused"]) == 0
    assert bits(state, ["model_state"]) != codes
