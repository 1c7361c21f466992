"""The train step: the same on every mesh and for every cut of the batch, safe without masked tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from vlbeit_jax.data.pipeline import Share
from vlbeit_jax.tasks import TASKS
from vlbeit_jax.training.sharding import placement, put_batch, replicated
from vlbeit_jax.training.state import state_maker
from vlbeit_jax.training.step import make_train_step
from vlbeit_jax.types import Stream

MESHES = [(8, 1, 1), (1, 8, 1), (1, 1, 4), (2, 2, 2), (4, 1, 2), (1, 4, 2)]


def first_batches(task, size: int = 8):
    found = {}
    for stream in Stream:
        batches = task.training_batches(stream, 0, Share())
        found[stream] = next(batches)
        batches.close()
        assert len(found[stream]["uid"]) == size
    return found


def one_step(task, batches, mesh, accumulate=1, streams=tuple(Stream)):
    """Metrics and parameter gradients of one step: with plain descent of rate 1 the change is the gradient."""
    optimizer = optax.sgd(1.0)
    make, abstract = state_maker(task.init_params, lambda: {n: o.init_extra() for n, o in task.objectives.items()}, optimizer, mesh)
    state = make(3)
    before = jax.device_get(state.params)
    step = make_train_step(task.objectives, optimizer, 0, accumulate, mesh, placement(abstract.params))
    frozen = jax.device_put(task.frozen, replicated(mesh))
    state, metrics = step(state, frozen, {name: put_batch(batches[name], mesh) for name in streams})
    gradients = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), before, jax.device_get(state.params))
    return jax.device_get(metrics), gradients


@pytest.fixture(scope="module")
def task(world):
    return TASKS["pretrain"](tiny.pretrain_config(world, schedule="image+text+pair"))


@pytest.fixture(scope="module")
def batches(task):
    return first_batches(task)


@pytest.fixture(scope="module")
def on_one_device(task, batches):
    return one_step(task, batches, tiny.mesh_of())


def assert_same(found, wanted):
    for name in wanted[0]:
        np.testing.assert_allclose(found[0][name], wanted[0][name], rtol=1e-5, atol=1e-6, err_msg=name)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted[1]))
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(wanted[1]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_allclose(other, leaf, atol=2e-6 * scale, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_every_mesh_gives_the_losses_and_gradients_of_one_device(task, batches, on_one_device, shape):
    assert_same(one_step(task, batches, tiny.mesh_of(*shape)), on_one_device)


def test_another_batch_is_noticed(task, batches, on_one_device):
    changed = batches | {Stream.TEXT: {name: rows[::-1].copy() for name, rows in batches[Stream.TEXT].items()}}
    changed[Stream.TEXT]["text_targets"] = np.roll(changed[Stream.TEXT]["text_targets"], 1, axis=0)
    with pytest.raises(AssertionError):
        assert_same(one_step(task, changed, tiny.mesh_of()), on_one_device)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2)], ids=str)
@pytest.mark.parametrize(("remat", "scan"), [("dots", False), ("full", False), ("none", True), ("full", True)])
def test_computing_again_and_looping_change_nothing(world, batches, on_one_device, remat, scan, shape):
    config = tiny.pretrain_config(world, schedule="image+text+pair")
    model = tiny.dataclasses.replace(config.model, remat=remat, scan=scan)
    again = TASKS["pretrain"](tiny.dataclasses.replace(config, model=model))
    assert_same(one_step(again, batches, tiny.mesh_of(*shape)), on_one_device)


def test_another_shape_is_an_error_and_no_second_compilation(task, batches):
    optimizer, mesh = optax.sgd(1.0), tiny.mesh_of()
    make, abstract = state_maker(task.init_params, lambda: {n: o.init_extra() for n, o in task.objectives.items()}, optimizer, mesh)
    step = make_train_step(task.objectives, optimizer, 0, 1, mesh, placement(abstract.params))
    frozen = jax.device_put(task.frozen, replicated(mesh))
    text = batches[Stream.TEXT]
    state, _ = step(make(3), frozen, {Stream.TEXT: put_batch(text, mesh)})
    compiled = step.total_compile_seconds
    state, _ = step(state, frozen, {Stream.TEXT: put_batch(text, mesh)})
    assert step.total_compile_seconds == compiled
    with pytest.raises(TypeError, match="differ from the types"):
        step(state, frozen, {Stream.TEXT: put_batch({name: rows[:4] for name, rows in text.items()}, mesh)})


@pytest.mark.parametrize("parts", [2, 4])
def test_microbatches_change_nothing(world, parts):
    task = TASKS["pretrain"](tiny.pretrain_config(world, schedule="image+text+pair"))
    batches = first_batches(task)
    batches[Stream.TEXT]["text_weights"][:3] = 0  # Unequal weights: a mean of means would show.
    assert_same(one_step(task, batches, tiny.mesh_of(2), parts), one_step(task, batches, tiny.mesh_of()))


def test_streams_add_up(task, batches, on_one_device):
    alone = [one_step(task, batches, tiny.mesh_of(), streams=(stream,))[1] for stream in Stream]
    together = jax.tree.map(lambda *leaves: sum(leaves), *alone)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(together))
    for found, wanted in zip(jax.tree.leaves(on_one_device[1]), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-6 * scale)


@pytest.mark.parametrize("empty", ["rows", "slots"])
def test_nothing_masked_gives_loss_0_and_finite_gradients(task, batches, empty):
    blank = {name: dict(rows) for name, rows in batches.items()}
    for rows in blank.values():
        if empty == "rows":
            rows["weight"] = np.zeros_like(rows["weight"])
        elif "text_weights" in rows:
            rows["text_weights"] = np.zeros_like(rows["text_weights"])
    metrics, gradients = one_step(task, blank, tiny.mesh_of())
    assert metrics["mlm/loss"] == 0 and metrics["mvlm_text/loss"] == 0
    assert (metrics["mim/loss"] == 0) == (empty == "rows")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert all(np.isfinite(value) for value in metrics.values())


def test_unigram_answers_with_what_came_up_most_often(task, batches):
    objective = task.objectives[Stream.TEXT]
    extra = objective.init_extra()
    extra = {"mlm": extra["mlm"].at[7].set(5)}
    rows = {name: jnp.asarray(value) for name, value in batches[Stream.TEXT].items()}
    rows["row"] = jnp.arange(len(rows["weight"]))
    rows["text_targets"] = jnp.full_like(rows["text_targets"], 9).at[:2].set(7)
    params = jax.tree.map(jnp.zeros_like, tiny_params(task))
    terms, counts = objective(params, extra, {}, rows, jax.random.key(0))
    weight = rows["text_weights"]
    assert float(terms["mlm"].sums["unigram"]) == float(weight[:2].sum())
    assert int(counts["mlm"][7]) == int(weight[:2].sum()) and int(counts["mlm"].sum()) == int(weight.sum())


def tiny_params(task):
    import flax.linen as nn

    return nn.unbox(task.init_params(jax.random.key(0)))
