"""A step whose loss or gradient is not finite changes nothing but the count of steps."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training.linear import GUARDED, Training, bits, rows
from vlbeit_jax.config.common import OptimizerConfig
from vlbeit_jax.models.params import ParamInfo
from vlbeit_jax.training import checkpoint
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.guard import all_finite, guarded_update
from vlbeit_jax.training.optimizer import learning_rate, make_optimizer
from vlbeit_jax.training.state import SAVED_REFUSED, TrainState

EIGHT = [(8, 1, 1), (2, 4, 1)]


def spoilt(name, value, row=9):
    """Rows of which one, on one of eight devices, has a bad number."""
    found = rows(1)
    found[name] = found[name].copy()
    found[name][row] = value
    return found


BAD = {
    "a NaN in the input": spoilt("x", np.nan),
    "a NaN in the target": spoilt("y", np.nan),
    "a NaN in the weight": spoilt("weight", np.nan),
    "a gradient that overflows": spoilt("y", 1e25),
    "statistics alone": spoilt("statistic", np.inf),
}


@pytest.mark.parametrize("shape", EIGHT, ids=str)
def test_one_bad_row_on_eight_devices_changes_nothing(shape):
    training = Training(shape, ema_decay=0.5)
    state, metrics = training(training.make(0), rows(0))
    assert int(metrics["refused"]) == 0
    before = bits(state)
    parts = {name: bits(state, [name]) for name in GUARDED}
    for number, (what, bad) in enumerate(BAD.items(), start=1):
        state, metrics = training(state, bad)
        assert bits(state) == before, what
        flags = {int(shard.data) for shard in metrics["refused"].addressable_shards}
        assert flags == {1}, what
        assert int(state.step) == 1 + number and int(state.refused) == number
    # The control: a finite step changes all of it, and is not counted.
    after, metrics = training(state, rows(1))
    for name in GUARDED:
        assert bits(after, [name]) != parts[name], name
    assert int(metrics["refused"]) == 0 and int(after.refused) == len(BAD)


def test_metrics_say_what_was_not_finite():
    training = Training((8, 1, 1))
    _, metrics = training(training.make(0), BAD["a NaN in the input"])
    assert np.isnan(metrics["fit/loss"]) and np.isnan(metrics["grad_norm"])
    _, metrics = training(training.make(0), BAD["a gradient that overflows"])
    assert np.isinf(metrics["grad_norm"])


def test_good_bad_good_equals_two_good_steps():
    training = Training((2, 4, 1), ema_decay=0.5)
    spoiled, straight = training.make(0), training.make(0)
    for batch in (rows(0), BAD["a NaN in the input"], rows(1)):
        spoiled, _ = training(spoiled, batch)
    for batch in (rows(0), rows(1)):
        straight, _ = training(straight, batch)
    assert bits(spoiled) == bits(straight)
    assert (int(spoiled.step), int(straight.step)) == (3, 2)


# From the largest numbers whose squares' sum is finite to subnormal ones, and zeros.
SIZES = [5e18, 7e18, 1e-3, 1e-25, 1e-44, 0, 0, 5e18, 5e18, 0, 0, 1e-44]


def norms_of_updates(optimizer):
    """Runs an optimizer on gradients of all sizes; returns the norms of updates and states."""
    rng, params = np.random.default_rng(0), {"kernel": jnp.ones(8)}
    gradients = np.float32(SIZES)[:, None] * rng.uniform(-1, 1, (len(SIZES), 8)).astype(np.float32)
    state, found = optimizer.init(params), []
    for gradient in gradients:
        assert np.isfinite(optax.tree.norm(jnp.asarray(gradient)))
        updates, state = optimizer.update({"kernel": jnp.asarray(gradient)}, state, params)
        assert all_finite(state)
        found.append(float(optax.tree.norm(updates)))
    return found


@pytest.mark.parametrize("clip_norm", [0.0, 3.0])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.82), (0.99, 0.981), (0, 0), (0, 0.999)])
def test_an_update_is_finite_whenever_the_norm_of_its_gradient_is(betas, clip_norm):
    """Therefore the guard need not look at the update."""
    beta1, beta2 = betas
    config = OptimizerConfig(
        beta1=beta1, beta2=beta2, eps=1e-16, clip_norm=clip_norm, warmup_steps=0
    )
    assert not list(config.problems())
    info = {"kernel": ParamInfo(decay=True)}
    assert np.isfinite(norms_of_updates(make_optimizer(config, 100, info))).all()
    # The control: settings that are refused.
    worse = dataclasses.replace(config, beta1=0.99, beta2=0.0, clip_norm=0.0)
    assert not np.isfinite(norms_of_updates(make_optimizer(worse, 100, info))).all()
    (problem,) = worse.problems()
    assert problem == "beta2=0.0 must be above the square of beta1=0.99"


def test_the_learning_rate_follows_the_step_past_refused_updates_and_rollbacks():
    """Of equal gradients, AdamW's update is the learning rate, at any step."""
    config = OptimizerConfig(
        peak_lr=0.1, warmup_steps=4, beta1=0.0, beta2=0.5, eps=1e-16, weight_decay=0.0
    )
    info = {"kernel": ParamInfo()}
    optimizer, rate = make_optimizer(config, 20, info), learning_rate(config, 20)
    params = {"kernel": jnp.zeros(2)}
    zero = jnp.int32(0)
    state = TrainState(zero, params, optimizer.init(params), {}, None, zero)
    # A rollback goes on at a later step; the others follow each other.
    for step, gradient in ((1, 1.0), (2, np.nan), (3, 1.0), (4, np.inf), (5, 1.0), (15, 1.0)):
        before = float(state.params["kernel"][0])
        state = dataclasses.replace(state, step=jnp.int32(step))
        gradients = {"kernel": jnp.full(2, gradient)}
        state, metrics = guarded_update(optimizer, state, gradients, {}, {}, 0.0)
        moved, applied = before - float(state.params["kernel"][0]), np.isfinite(gradient)
        np.testing.assert_allclose(moved, rate(step) if applied else 0, rtol=1e-5)
        assert int(metrics["refused"]) == (not applied)


def test_the_average_follows_the_parameters():
    training, decay = Training((2, 4, 1), ema_decay=0.15), 0.15
    state = training.make(0)
    expected = jax.device_get(state.params)
    for seed in range(3):
        state, _ = training(state, rows(seed))
        now = min(decay, (1 + seed) / (10 + seed))
        expected = jax.tree.map(
            lambda mean, new, now=now: now * mean + (1 - now) * new,
            expected,
            jax.device_get(state.params),
        )
    found = jax.device_get(state.ema)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    assert bits(state, ["ema"]) != bits(state, ["params"])


def test_a_decay_without_an_average_is_an_error():
    with_ema, without = Training((1, 1, 1), ema_decay=0.5), Training((1, 1, 1))
    with pytest.raises(ValueError, match="ema_decay=0.5, but the state has no ema"):
        with_ema(without.make(0), rows(0))
    with pytest.raises(ValueError, match="ema_decay=0.0, but the state has an ema"):
        without(with_ema.make(0), rows(0))


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_the_guard_donates_the_whole_state(ema_decay):
    training = Training((2, 4, 1), ema_decay)
    state, batch = training.make(0), training.put(rows(0))
    memory = training.step.lower(state, {}, batch).compile().memory_analysis()
    on_one_device = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    assert memory.alias_size_in_bytes == on_one_device


def saved_and_restored(folder, state, abstract):
    with contextlib.closing(Checkpointer(folder)) as checkpointer:
        checkpointer.save(int(state.step), state.saved(), {})
        checkpointer.wait()
        return checkpointer.restore_state(int(state.step), abstract)


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_average_and_count_survive_a_restart(tmp_path, ema_decay):
    training = Training((2, 4, 1), ema_decay)
    state, _ = training(training.make(0), BAD["a NaN in the input"])
    state, _ = training(state, rows(0))
    found = saved_and_restored(tmp_path, state, training.abstract)
    assert bits(found) == bits(state) and (int(found.step), int(found.refused)) == (2, 1)


def test_an_average_that_was_not_saved_starts_at_the_parameters(tmp_path):
    before, after = Training((1, 1, 1)), Training((1, 1, 1), ema_decay=0.5)
    state, _ = before(before.make(0), rows(0))
    found = saved_and_restored(tmp_path, state, after.abstract)
    assert bits(found, ["ema"]) == bits(found, ["params"]) == bits(state, ["params"])
    after(found, rows(1))  # No array is donated twice.


def test_a_checkpoint_of_format_1_is_read(tmp_path, monkeypatch):
    """Format 1 had no entry for it, called the model state "extra" and counted no refusals."""
    training = Training((2, 4, 1))
    state, _ = training(training.make(0), rows(0))
    trees = state.saved()
    trees["extra"] = trees.pop("model_state")
    del trees["optimizer"][SAVED_REFUSED]
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    with contextlib.closing(Checkpointer(tmp_path)) as checkpointer:
        checkpointer.save(1, trees, {})
    monkeypatch.undo()
    with contextlib.closing(Checkpointer(tmp_path)) as checkpointer:
        found = checkpointer.restore_state(1, training.abstract)
    assert bits(found) == bits(state) and (int(found.step), int(found.refused)) == (1, 0)
    assert found.refused.sharding == training.abstract.refused.sharding
    training(found, rows(1))


def test_the_state_has_no_other_part():
    """A new field of the state must be guarded, or be a count."""
    state = Training((1, 1, 1)).abstract
    names = {field.name for field in dataclasses.fields(state)}
    assert names == {*GUARDED, "step", "refused"}
