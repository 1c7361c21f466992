"""What is not trained costs neither operations nor communication nor memory."""

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from tests import tiny
from tests.cost.formulas import transformer
from tests.training.test_trainable import config_with, info_of, named, selected
from vlbeit_jax.models.params import differentiated_by
from vlbeit_jax.objectives.base import ROW, Context, Variables, on_one_device
from vlbeit_jax.plan import memory
from vlbeit_jax.tasks.abstract import abstract_step, row_shapes
from vlbeit_jax.tasks.flops import step_flops
from vlbeit_jax.training.mesh import on_mesh
from vlbeit_jax.training.state import declarations
from vlbeit_jax.training.trainable import trained_parameters


def reduced_numbers(trainable):
    """Numbers that a step reduces over eight devices, counted in its jaxpr."""
    config = config_with(trainable, (4, 2, 1))
    step, _, state, frozen, batches = abstract_step(config, tiny.mesh_of(4, 2, 1))
    with on_mesh(tiny.mesh_of(4, 2, 1)):
        jaxpr = jax.make_jaxpr(step._step)(state, frozen, batches)
    return sum(
        var.aval.size
        for eqn in equations(jaxpr.jaxpr)
        if eqn.primitive.name in ("psum", "psum_invariant", "reduce_scatter")
        for var in eqn.invars
        if jnp.issubdtype(var.aval.dtype, jnp.floating)
    )


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(getattr(inner, "jaxpr", inner))


def test_only_gradients_of_trained_parameters_are_reduced_over_devices():
    sizes = {
        name: leaf.size
        for name, leaf in named(declarations(config_with().task.init).shapes).items()
    }
    top = sum(sizes[name] for name in selected("top:1"))
    found = {trainable: reduced_numbers(trainable) for trainable in ("all", "top:1")}
    # The sums of the metrics come on top, and what the word head exchanges for its own loss.
    assert found["all"] - found["top:1"] > 0.9 * (sum(sizes.values()) - top)
    assert found["top:1"] < 1.5 * top


def test_the_backward_pass_ends_at_the_lowest_trained_block():
    model = {"fused_layers": 0}
    flops = {
        trainable: step_flops(config_with(trainable, model=model)).model
        for trainable in ("heads", "top:1", "top:2", "all")
    }
    task = config_with(model=model).task
    length = task.model.patches + 1 + task.pair.text_length
    # Forward. The two gradients of a product cost as much each.
    block = task.pair.batch_size * transformer(length, 32, 1, 64)
    assert flops["top:2"] - flops["top:1"] == 2 * block
    # The lowest trained block needs no gradient of what enters it; the heads hand one down.
    assert block < flops["top:1"] - flops["heads"] < 3 * block
    # The lowest block of all hands one down to the embeddings.
    assert flops["all"] - flops["top:2"] > 2 * block
    assert step_flops(config_with("top:1", model=model | {"remat": "full"})).model == flops["top:1"]


def test_a_loop_is_split_where_training_begins():
    """Otherwise the whole loop would take part in the backward pass: the control."""
    config = config_with("top:1", model={"fused_layers": 0, "scan": True})
    objective = config.task.streams()["pair"].objective
    shapes = declarations(config.task.init).shapes
    trained = trained_parameters("top:1", shapes)

    def loss(params, model_state, frozen, batch, ctx):
        return on_one_device(objective, Variables(params, model_state, frozen), batch, ctx)

    def counted(names):
        with differentiated_by(names):
            jaxpr = jax.make_jaxpr(lambda *given: loss(*given))(shapes, *arguments(config))
        return sum(eqn.primitive.name == "scan" for eqn in equations(jaxpr.jaxpr))

    assert counted(trained.names) == counted(None) + 1


def arguments(config):
    """Shapes of the other arguments of a loss."""
    batch = row_shapes(config.task, "pair")
    batch[ROW] = jax.ShapeDtypeStruct(batch["weight"].shape, jnp.int32)
    model_state = config.task.streams()["pair"].objective.init_model_state()
    key = jax.eval_shape(jax.random.key, 0)
    return model_state, config.task.frozen(), batch, Context(key)


@pytest.mark.slow
def test_predicted_memory_has_fewer_moments_gradients_and_activations():
    found = {}
    for trainable in ("all", "top:1"):
        config = config_with(trainable)
        _, _, state, frozen, batches = abstract_step(config, tiny.mesh_of())
        objectives = {"pair": config.task.streams()["pair"].objective}
        info = info_of(config)
        found[trainable] = memory.estimate(
            objectives,
            state,
            info,
            frozen,
            {"pair": batches["pair"]},
            accumulate=1,
            rows=1,
            tensor=1,
            on_tpu=False,
            trained=trained_parameters(trainable, info),
        )
    sizes = [leaf.size for name, leaf in named(state.params).items() if name in selected("top:1")]
    assert found["top:1"].optimizer - 8 * sum(sizes) < 32  # Counts of steps.
    assert found["top:1"].parameters == found["all"].parameters
    gradients = 4 * (sum(leaf.size for leaf in jax.tree.leaves(state.params)) - sum(sizes))
    saved = found["all"].temporaries - found["top:1"].temporaries
    assert saved > gradients  # Two of three blocks keep no activations besides.
