"""The train step is the same on every mesh and with every split of the batch.

It is also safe without masked tokens.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.data import pipeline
from vlbeit_jax.objectives.base import Context, Variables
from vlbeit_jax.objectives.masked_prediction import TERMS
from vlbeit_jax.training.mesh import put_batch, replicated, shardings
from vlbeit_jax.training.state import declarations, state_maker
from vlbeit_jax.training.step import make_train_step

ONE = (1, 1, 1)
# Pairs go through both embeddings and both heads, and compile in half the time of all streams. The
# experts of one modality in the top blocks get tokens from images and texts alone, so (2, 2, 2) has
# all streams.
PAIR = ("pair",)
MESHES = [
    *((8, 1, 1), (1, 1, 4)),
    # (2, 2, 2) has all three axes at once.
    *(pytest.param(shape, marks=pytest.mark.slow) for shape in [(1, 8, 1), (4, 1, 2), (1, 4, 2)]),
]


def first_batches(task, size: int = 8):
    found, data = {}, task.open().training_data(RunConfig())
    for stream in TERMS:
        batches = pipeline.batches(data.examples(stream), size)
        found[stream] = next(batches)
        batches.close()
        assert len(found[stream]["uid"]) == size
    return found


OPTIMIZER = optax.sgd(1.0)  # Plain descent of rate 1: the change of a parameter is its gradient.


def state_for(task, shape):
    """How a state is made on a mesh, and its shapes there."""
    model_state = {n: each.objective.init_model_state() for n, each in task.streams().items()}
    return state_maker(task.init, lambda: model_state, OPTIMIZER, tiny.mesh_of(*shape))


@functools.cache
def start_of(task):
    """The state that every step begins with, on the host."""
    return jax.device_get(state_for(task, ONE)[0](3))


@functools.cache
def frozen_of(task):
    """The parameters of the visual tokenizer."""
    return task.open().frozen


@functools.cache
def step_for(task, shape, accumulate):
    """A step on a mesh, which compiles once for each set of streams, and where its state lies."""
    abstract = state_for(task, shape)[1]
    step = make_train_step(
        {name: each.objective for name, each in task.streams().items()},
        OPTIMIZER,
        declarations(task.init).info,
        shardings(abstract.params),
        tiny.mesh_of(*shape),
        seed=0,
        accumulate=accumulate,
    )
    return step, shardings(abstract)


def one_step(task, batches, shape=ONE, accumulate=1, streams=tuple(TERMS)):
    """Metrics and parameter gradients of one step."""
    mesh, before, (step, places) = (
        tiny.mesh_of(*shape),
        start_of(task),
        step_for(task, shape, accumulate),
    )
    state, frozen = (
        jax.device_put(before, places),
        jax.device_put(frozen_of(task), replicated(mesh)),
    )
    state, metrics = step(state, frozen, {name: put_batch(batches[name], mesh) for name in streams})
    gradients = jax.tree.map(
        lambda a, b: np.asarray(a) - np.asarray(b), before.params, jax.device_get(state.params)
    )
    return jax.device_get(metrics), gradients


def task_with(world, **model):
    config = tiny.pretrain_config(world, schedule="image+text+pair")
    return tiny.changed(config, task={"model": model}).task.resolve()


@pytest.fixture(scope="module")
def task(world):
    yield task_with(world)
    start_of.cache_clear()
    step_for.cache_clear()


@pytest.fixture(scope="module")
def batches(task):
    return first_batches(task)


@pytest.fixture(scope="module")
def on_one_device(task, batches):
    return one_step(task, batches)


def assert_same(found, wanted):
    for name in wanted[0]:
        np.testing.assert_allclose(
            found[0][name], wanted[0][name], rtol=1e-5, atol=1e-6, err_msg=name
        )
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted[1]))
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(wanted[1]), jax.tree.leaves(found[1]), strict=True
    ):
        np.testing.assert_allclose(
            other, leaf, atol=2e-6 * scale, err_msg=jax.tree_util.keystr(path)
        )


@pytest.fixture(scope="module")
def pairs_on_one_device(task, batches):
    return one_step(task, batches, streams=PAIR)


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_every_mesh_gives_the_losses_and_gradients_of_one_device(
    task, batches, pairs_on_one_device, shape
):
    assert_same(one_step(task, batches, shape, streams=PAIR), pairs_on_one_device)


def test_all_streams_and_axes_of_a_mesh_give_those_of_one_device(task, batches, on_one_device):
    assert_same(one_step(task, batches, (2, 2, 2)), on_one_device)


def test_another_batch_is_noticed(task, batches, on_one_device):
    changed = batches | {
        "text": {name: rows[::-1].copy() for name, rows in batches["text"].items()}
    }
    changed["text"]["text_targets"] = np.roll(changed["text"]["text_targets"], 1, axis=0)
    with pytest.raises(AssertionError):
        assert_same(one_step(task, changed), on_one_device)


@pytest.mark.slow  # Looping below computes again, too; tests/models/test_scan.py has "dots".
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_computing_again_changes_nothing(world, batches, pairs_on_one_device, remat):
    again = task_with(world, remat=remat)
    assert_same(one_step(again, batches, streams=PAIR), pairs_on_one_device)


@pytest.mark.parametrize(
    ("remat", "shape", "streams"),
    [
        ("full", (2, 2, 2), PAIR),
        # tests/models/test_scan.py has one device and all streams, without a step.
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("none", ONE, tuple(TERMS)),
                ("full", ONE, PAIR),
                ("full", (2, 2, 2), tuple(TERMS)),
                ("none", (2, 2, 2), PAIR),
            ]
        ),
    ],
)
def test_looping_changes_nothing(world, batches, remat, shape, streams):
    loop = {"depth": 3}  # So that a loop has more than one block.
    found = one_step(task_with(world, scan=True, remat=remat, **loop), batches, shape, 1, streams)
    assert_same(found, one_step(task_with(world, **loop), batches, streams=streams))


def test_what_is_asked_of_xla_for_gpus_changes_nothing(task, batches, on_one_device, monkeypatch):
    """This jaxlib knows the compiler options, and ordering the streams leaves the sum unchanged."""
    monkeypatch.setattr("vlbeit_jax.training.step.on_nvidia", lambda: True)
    monkeypatch.setattr("tests.training.test_step.step_for", step_for.__wrapped__)
    assert_same(one_step(task, batches), on_one_device)


def test_another_shape_is_an_error_and_no_second_compilation(task, batches):
    mesh, (step, places) = tiny.mesh_of(), step_for(task, ONE, 1)
    frozen, text = jax.device_put(frozen_of(task), replicated(mesh)), batches["text"]
    state, _ = step(jax.device_put(start_of(task), places), frozen, {"text": put_batch(text, mesh)})
    compiled = step.total_compile_seconds
    state, _ = step(state, frozen, {"text": put_batch(text, mesh)})
    assert step.total_compile_seconds == compiled
    with pytest.raises(TypeError, match="differ from the types"):
        step(
            state,
            frozen,
            {"text": put_batch({name: rows[:4] for name, rows in text.items()}, mesh)},
        )


@pytest.mark.parametrize(
    ("parts", "streams"),
    [(2, tuple(TERMS)), pytest.param(4, ("text",), marks=pytest.mark.slow)],
)
def test_microbatches_change_nothing(task, batches, parts, streams):
    text = {name: rows.copy() for name, rows in batches["text"].items()}
    text["text_weights"][:3] = 0  # Unequal weights: a mean of means would show.
    uneven = batches | {"text": text}
    found = one_step(task, uneven, (2, 1, 1), parts, streams)
    assert_same(found, one_step(task, uneven, streams=streams))


def test_streams_add_up(task, batches, on_one_device):
    alone = [one_step(task, batches, streams=(stream,))[1] for stream in TERMS]
    together = jax.tree.map(lambda *leaves: sum(leaves), *alone)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(together))
    for found, wanted in zip(
        jax.tree.leaves(on_one_device[1]), jax.tree.leaves(together), strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=2e-6 * scale)


@pytest.mark.parametrize("empty", ["rows", "slots"])
def test_nothing_masked_gives_loss_0_and_finite_gradients(task, batches, empty):
    blank = {name: dict(rows) for name, rows in batches.items()}
    for rows in blank.values():
        if empty == "rows":
            rows["weight"] = np.zeros_like(rows["weight"])
        elif "text_weights" in rows:
            rows["text_weights"] = np.zeros_like(rows["text_weights"])
    metrics, gradients = one_step(task, blank)
    assert metrics["mlm/loss"] == 0 and metrics["mvlm_text/loss"] == 0
    assert (metrics["mim/loss"] == 0) == (empty == "rows")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert all(np.isfinite(value) for value in metrics.values())


def test_unigram_answers_with_what_came_up_most_often(task, batches):
    objective = task.streams()["text"].objective
    model_state = objective.init_model_state()
    model_state = {"mlm": model_state["mlm"].at[7].set(5)}
    rows = {name: jnp.asarray(value) for name, value in batches["text"].items()}
    rows["row"] = jnp.arange(len(rows["weight"]))
    rows["text_targets"] = jnp.full_like(rows["text_targets"], 9).at[:2].set(7)
    params = jax.tree.map(jnp.zeros_like, start_of(task).params)
    terms, counts = jax.jit(objective)(
        Variables(params, model_state, {}), rows, Context(jax.random.key(0))
    )
    weight = rows["text_weights"]
    assert float(terms["mlm"].sums["unigram"]) == float(weight[:2].sum())
    assert int(counts["mlm"][7]) == int(weight[:2].sum()) and int(counts["mlm"].sum()) == int(
        weight.sum()
    )
