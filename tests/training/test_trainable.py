"""``optimizer.trainable``: fixed parameters have no gradient and no moments, and never change."""

import dataclasses
import functools
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from tests.training.test_golden import noise
from vlbeit_jax.config.common import MeshConfig, OptimizerConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.synthetic import random_batches
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.mesh import shardings
from vlbeit_jax.training.optimizer import make_optimizer, rate_factors
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.state import declarations, state_maker
from vlbeit_jax.training.step import make_train_step
from vlbeit_jax.training.trainable import (
    EVERYTHING,
    check_fixed,
    describe_trained,
    part_like,
    replaced,
    trained_parameters,
)

WORLD = tiny.world_in(pathlib.Path("nowhere"))  # Nothing is read: batches are random.
HEADS = {f"{each}_head/{part}" for each in ("vision", "language") for part in ("kernel", "bias")}
NORM = {"encoder/norm/scale", "encoder/norm/bias"}


def config_with(
    trainable="all", shape=(1, 1, 1), accumulate=1, model=None, stream="pair", **optimizer
):
    config = tiny.pretrain_config(WORLD, schedule=stream, accumulate=accumulate)
    tokenizer = tiny.vqkd_config(WORLD).task.model
    task = {"model": {"depth": 3} | (model or {}), "tokenizer_model": tokenizer}
    optimizer |= {"trainable": trainable, "warmup_steps": 0}
    return dataclasses.replace(
        tiny.changed(config, task=task, optimizer=optimizer),
        mesh=MeshConfig(data=shape[0], fsdp=shape[1], tensor=shape[2]),
    )


def named(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {leaf_name(path): leaf for path, leaf in leaves}


def info_of(config):
    return declarations(config.task.init).info


def selected(setting, config=None):
    """Names of the parameters that are trained."""
    info = info_of(config or config_with())
    return frozenset(named(trained_parameters(setting, info).of(info)))


def stepped(config, shape=(1, 1, 1), steps=2):
    """The state before and after some steps, on the host, and the metrics of the last one."""
    step, make_state, _, frozen, batches = abstract_step(config, tiny.mesh_of(*shape))
    state, frozen = make_state(0), noise(frozen)
    rows = random_batches(config, batches, 0)
    before = jax.device_get(state)
    for _ in range(steps):
        state, metrics = jax.block_until_ready(step(state, frozen, rows))
    return before, jax.device_get(state), metrics


def test_settings_select_what_their_help_says():
    everything = frozenset(named(info_of(config_with())))
    assert trained_parameters("all", info_of(config_with())) is EVERYTHING
    assert trained_parameters("*", info_of(config_with())) == EVERYTHING
    assert selected("heads") == HEADS
    top = {name for name in everything if name.startswith("encoder/block_2/")}
    assert selected("top:1") == top | NORM | HEADS
    vision = {name for name in everything if re.match(r"encoder/block_\d/vision/", name)}
    assert len(vision) == 3 * 6
    assert selected("encoder/block_*/vision/*, heads") == vision | HEADS
    embeddings = {name for name in everything if name.split("/")[0].endswith("_embed")}
    assert selected("top:3") == everything - embeddings
    # VLMo's table acts in every block, so that the top ones alone cannot have it.
    relative = config_with(model={"positions": "relative"})
    assert not any("relative" in name for name in selected("top:3", relative))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("top:4", r"top:4 asks for more blocks than the 3 of this network"),
        ("heads,encoder/block_7/*", r"'encoder/block_7/\*' selects no parameter"),
        ("head", r"'head' selects no parameter(.|\n)*\n  encoder/block_\*/attention/qkv\n"),
    ],
)
def test_what_selects_nothing_is_refused_with_what_there_is(setting, message):
    with pytest.raises(UsageError, match=message) as raised:
        selected(setting)
    # Three blocks are listed once.
    assert str(raised.value).count("/attention/qkv") == 1


def test_top_blocks_of_a_tokenizer_are_refused_and_names_are_not():
    """Its decoder and the projection to codes lie above the encoder; names say what is meant."""
    tokenizer = tiny.vqkd_config(WORLD)
    message = r"top:1 counts blocks from the heads down, .* in decoder and encoder; give names"
    with pytest.raises(UsageError, match=message):
        selected("top:1", tokenizer)
    everything = frozenset(named(info_of(tokenizer)))
    above = {name for name in everything if re.match("to_code/|decoder/|to_target/", name)}
    found = selected("to_code/*,decoder/*,to_target/*", tokenizer)
    assert found == above and 0 < len(found) < len(everything)


@pytest.mark.parametrize("setting", ["", "top:0", "top:", "top:-1", "top:two", "all,heads", "a,"])
def test_what_cannot_be_read_is_refused_before_there_is_a_network(setting):
    (problem,) = OptimizerConfig(trainable=setting).problems()
    assert problem.startswith("trainable=")
    assert not list(OptimizerConfig(trainable="top:2, encoder/norm/*").problems())


def test_a_description_counts_numbers():
    shapes = declarations(config_with().task.init).shapes
    trained = trained_parameters("heads", shapes)
    moved = sum(leaf.size for name, leaf in named(shapes).items() if name in HEADS)
    said = describe_trained("heads", trained, shapes, "RUN")
    assert f"trains {moved:,} of " in said and said.endswith("keep the values of RUN")
    assert "random values" in describe_trained("heads", trained, shapes, "")
    assert describe_trained("all", EVERYTHING, shapes, "") == ""


def test_a_start_that_would_leave_fixed_parameters_random_is_refused():
    trained = trained_parameters("heads", info_of(config_with()))
    check_fixed("heads", trained, ["vision_head/bias"], "RUN")
    with pytest.raises(UsageError, match="keep random values(.|\n)*encoder/norm/scale"):
        check_fixed("heads", trained, ["vision_head/bias", "encoder/norm/scale"], "RUN")


def test_parts_go_back_where_they_were():
    tree = {"a": {"b": 1, "c": 2}, "d": {"e": 3}}
    part = trained_parameters("a/c", tree).of(tree)
    assert part == {"a": {"c": 2}}
    assert replaced(tree, {"a": {"c": 5}}) == {"a": {"b": 1, "c": 5}, "d": {"e": 3}}
    assert part_like(tree, part) == part and replaced(tree, tree) == tree


QUICK = ("top, averages", "heads, eight devices")
CASES = {
    "top, averages": ("top:1", (1, 1, 1), {"ema_decay": 0.9}),
    "heads, eight devices": ("heads", (4, 2, 1), {}),
    "an expert and words, microbatches, all axes": (
        "encoder/block_*/vision_language/*,text_embed/*",
        (2, 2, 2),
        {"accumulate": 2},
    ),
    "top, loops, relative positions": (
        "top:1",
        (1, 1, 1),
        {"model": {"scan": True, "positions": "relative", "fused_layers": 0}},
    ),
}


@pytest.mark.parametrize(
    "case",
    # The others add what test_step.py and test_scan.py test alone: microbatches, axes and loops.
    [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in CASES],
)
def test_fixed_parameters_keep_their_bits_and_have_no_moments(case):
    trainable, shape, more = CASES[case]
    config = config_with(trainable, shape, **more)
    before, after, metrics = stepped(config, shape)
    names = selected(trainable, config)
    changed = {
        name
        for name, value in named(before.params).items()
        if value.tobytes() != named(after.params)[name].tobytes()
    }
    assert changed <= names
    # The control: weight decay alone moves each kernel that is trained, used by pairs or not.
    decayed = {name for name, each in named(info_of(config)).items() if each.decay}
    assert changed >= decayed & names
    moments = named(after.opt_state)
    assert sum(leaf.ndim > 0 or leaf.dtype == jnp.float32 for leaf in moments.values()) == 2 * len(
        names
    )
    assert float(metrics["grad_norm"]) > 0 and int(metrics["refused"]) == 0
    if after.ema is not None:
        assert set(named(after.ema)) == names


def zeroing(names, info, part):
    """Sets a part of a tree to zero: what is not trained."""
    mask = jax.tree_util.tree_map_with_path(lambda path, _: leaf_name(path) not in names, info)
    return optax.masked(optax.set_to_zero(), mask) if part else optax.identity()


@functools.cache
def run_of_reference(zero_gradients):
    """Three steps of the whole network, whose optimizer ignores what is not trained."""
    config = config_with("all", **RATES)
    info, names = info_of(config), selected("top:1", config)
    mesh = tiny.mesh_of()
    optimizer = optax.chain(
        zeroing(names, info, zero_gradients),
        make_optimizer(config.optimizer, config.run.steps, info),
        zeroing(names, info, True),
    )
    objectives = {"text": config.task.streams()["text"].objective}
    maker = state_maker(
        config.task.init,
        lambda: {"text": objectives["text"].init_model_state()},
        optimizer,
        mesh,
        ema=True,
    )
    places = shardings(maker.abstract.params)
    step = make_train_step(objectives, optimizer, info, places, mesh, seed=0, ema_decay=0.9)
    abstract = abstract_step(config, mesh)
    rows, frozen = random_batches(config, abstract.batches, 0), noise(abstract.frozen)
    state = maker.make(0)
    for _ in range(3):
        state, _ = jax.block_until_ready(step(state, frozen, rows))
    return jax.device_get(state)


# Clipping cuts the gradients, so that it matters whose norm is taken. What the optimizer does with
# gradients is compared, so the stream is the one that compiles in a third of the time of pairs.
RATES: dict[str, Any] = {
    "stream": "text",
    "model": {"depth": 2},
    "ema_decay": 0.9,
    "layer_decay": 0.5,
    "weight_decay": 0.1,
    "clip_norm": 1e-4,
}


def largest_difference(found, wanted):
    """Of updates, in units of the largest update."""
    found, wanted = named(found), named(wanted)
    scale = max(np.abs(leaf).max() for leaf in wanted.values())
    return max(np.abs(found[name] - wanted[name]).max() for name in wanted) / scale


def test_trained_parameters_move_as_if_the_gradients_of_others_were_zero():
    before, after, _ = stepped(config_with("top:1", **RATES), steps=3)
    wanted, control = run_of_reference(True), run_of_reference(False)
    moved = [
        jax.tree.map(np.subtract, state.averaged_params, before.params)
        for state in (after, wanted, control)
    ]
    # The programs differ, so sums are rounded otherwise: 1e-7 of a gradient, which AdamW divides by
    # its own size plus eps.
    assert largest_difference(moved[0], moved[1]) < 1e-4
    # The control clips by the norm of all gradients, those of fixed parameters included.
    assert largest_difference(moved[0], moved[2]) > 1e-2
    assert (
        rate_factors(OptimizerConfig(layer_decay=0.5), info_of(config_with()))[
            "encoder/block_2/attention/qkv"
        ]
        == 0.5
    )  # Of the whole network, of which three blocks are there.


def test_averages_are_saved_with_fixed_parameters_and_restored_without(tmp_path):
    config = config_with("heads", ema_decay=0.9)
    _, make_state, abstract, _, _ = abstract_step(config, tiny.mesh_of())
    state = make_state(0)
    state = dataclasses.replace(state, ema=jax.tree.map(lambda leaf: leaf + 1, state.ema))
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, state.saved(), {})
    checkpointer.wait()
    assert set(checkpointer.leaves(1, "ema").shapes) == set(named(state.params))
    found = checkpointer.restore_state(1, abstract)
    jax.tree.map(np.testing.assert_array_equal, found, state)
    np.testing.assert_array_equal(
        checkpointer.leaves(1, "ema")["vision_head/bias"], state.params["vision_head"]["bias"] + 1
    )
    checkpointer.close()
