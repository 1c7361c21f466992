"""A warm start gives each parameter one value, and names everything that does not fit."""

import dataclasses
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.params import declare
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.training.adapters import first_rows, resize_positions
from vlbeit_jax.training.mesh import param_shardings
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.start_report import describe, listed
from vlbeit_jax.training.state import declarations
from vlbeit_jax.training.warm_start import (
    Origin,
    WarmStart,
    apply_plan,
    plan_warm_start,
)

CLASSES = 16
TEXTS = ("text_embed/*", "*/language/*", "*/vision_language/*")
RULES = WarmStart(
    fresh=("head/*",),
    dropped=("vision_head/*", "language_head/*", *TEXTS),
    adapt=(("vision_embed/positions", resize_positions),),
)


class Classifier(nn.Module):
    """An image classifier as a task would build it: the backbone and a head, in one scope."""

    config: ModelConfig

    def setup(self):
        self.backbone = Backbone(self.config)
        nn.share_scope(self, self.backbone)
        self.head = Head()

    def __call__(self, image):
        return self.head(self.backbone(Inputs(image=image)).tokens.x.mean(1))


class Head(nn.Module):
    @nn.compact
    def __call__(self, x):
        init = declare(nn.initializers.normal(), "embed", None)
        bias = declare(nn.initializers.ones, None)
        return x @ self.param("kernel", init, (x.shape[-1], CLASSES)) + self.param(
            "bias", bias, (CLASSES,)
        )


def model_config(image_size=32):
    nowhere = tiny.world_in(pathlib.Path("nowhere"))  # Only the model's settings are used.
    return dataclasses.replace(tiny.pretrain_config(nowhere).task.model, image_size=image_size)


def init_pretrained(config):
    return lambda key: VLBEiT(config).init(key, method="init_all")["params"]


def init_classifier(config):
    side = config.image_size
    image = jnp.zeros((1, side, side, 3), jnp.uint8)
    return lambda key: Classifier(config).init(key, image)["params"]


def by_name(tree):
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def shapes(init):
    return {name: tuple(leaf.shape) for name, leaf in by_name(declarations(init).shapes).items()}


@pytest.fixture(scope="module")
def source():
    return shapes(init_pretrained(model_config()))


@pytest.fixture(scope="module")
def target():
    return shapes(init_classifier(model_config(image_size=64)))


def names(plan, origin):
    return [each.name for each in plan if each.origin is origin]


def problems(source, target, rules):
    with pytest.raises(UsageError) as raised:
        plan_warm_start(source, target, rules, start="run.start_from=RUN")
    first, *rest, advice = str(raised.value).split("\n")
    assert first == "run.start_from=RUN holds another model:" and "settings" in advice
    return [line.removeprefix("  ") for line in rest]


def test_an_image_classifier_starts_at_another_size(source, target):
    plan = plan_warm_start(source, target, RULES)
    assert [each.name for each in plan] == sorted(target)
    assert names(plan, Origin.FRESH) == ["head/bias", "head/kernel"]
    assert names(plan, Origin.ADAPTED) == ["vision_embed/positions"]
    assert len(names(plan, Origin.SAME)) == 37


def test_the_log_names_all_that_is_not_the_same(source, target):
    said = describe(plan_warm_start(source, target, RULES), source).split("\n  ")
    dropped = len(source) - 38
    assert said[0] == f"37 same, 1 adapted, 2 fresh, {dropped} dropped"
    assert said[1] == "adapted: vision_embed/positions (17, 32) -> (65, 32) by resize_positions"
    assert said[2] == "fresh: head/bias, head/kernel"
    assert said[3].startswith("dropped: encoder/block_0/language/") and said[3].count(",") == (
        dropped - 1
    )
    everything = describe(plan_warm_start(source, source, WarmStart()), source)
    assert everything == f"{len(source)} same, 0 adapted, 0 fresh, 0 dropped"


def test_without_rules_every_difference_is_named_at_once(source, target):
    found = problems(source, target, WarmStart())
    left_over = sorted(source.keys() - target.keys())
    assert found == [
        "head/bias: nothing there, (16,) here",
        "head/kernel: nothing there, (32, 16) here",
        "vision_embed/positions: (17, 32) there, (65, 32) here",
        *(f"{name}: {source[name]} there, nothing here" for name in left_over),
    ]
    assert len(left_over) > 20


def test_rules_that_do_nothing_or_contradict_the_model_are_named(source, target):
    rules = WarmStart(
        fresh=("haed/*", "head/bias"),
        dropped=(*RULES.dropped, "*/vision/*", "heads/*"),
        adapt=(("text_embed/positions", first_rows), ("vision_embed/positions", first_rows)),
    )
    found = problems(source, target, rules)
    contradictions = [line for line in found if "leaves it out" in line]
    assert len(contradictions) == sum("/vision/" in name for name in target) > 0
    assert contradictions[0].startswith("encoder/block_0/vision/")
    assert [line for line in found if line not in contradictions] == [
        "head/kernel: nothing there, (32, 16) here",
        "vision_embed/positions: (17, 32) there, (65, 32) here: the start has learned positions "
        "for texts of up to 17 word pieces; set text_positions to at most 17",
        "the rule fresh='haed/*' matches no parameter of this model",
        "the rule dropped='heads/*' matches no parameter of the start",
        "the rule adapt='text_embed/positions' matches no parameter of this model",
    ]


def test_a_head_of_equal_shape_is_taken_unless_it_is_said_to_be_fresh():
    head = {"head/kernel": (4, 3)}
    (taken,) = plan_warm_start(head, head, WarmStart())
    (fresh,) = plan_warm_start(head, head, WarmStart(fresh=("head/*",)))
    assert taken.origin is Origin.SAME and fresh.origin is Origin.FRESH
    assert describe([fresh], head).endswith("fresh: head/kernel\n  dropped: head/kernel")


def test_a_copy_is_made_only_where_the_start_lacks_the_parameter():
    rules = WarmStart(copies=(("b", "a"),))
    (one, copy) = plan_warm_start({"a": (2,)}, {"a": (2,), "b": (2,)}, rules)
    assert one.origin is Origin.SAME and copy.origin is Origin.COPIED and copy.taken == "a"
    assert listed([one, copy], ["a"]) == {
        "same": ["a"],
        "adapted": {},
        "copied": {"b": "a"},
        "fresh": [],
        "dropped": [],
    }
    assert describe([one, copy], ["a"]).endswith("1 copied, 0 fresh, 0 dropped\n  copied: b from a")
    values = {"a": np.float32([1, 2])}
    initial = {name: jnp.zeros(2) for name in ("a", "b")}
    found = apply_plan([one, copy], values, initial)
    np.testing.assert_array_equal(found["b"], values["a"])
    (_, own) = plan_warm_start({"a": (2,), "b": (2,)}, {"a": (2,), "b": (2,)}, rules)
    assert own.origin is Origin.SAME
    for source in ({"a": (3,)}, {}):  # Another shape, or nothing to copy.
        with pytest.raises(UsageError, match="b: nothing there"):
            plan_warm_start(source, {"b": (2,)}, WarmStart(unneeded=("a",), copies=(("b", "a"),)))


def test_what_is_not_needed_may_be_there_or_not():
    small, large = {"a/x": (2,)}, {"a/x": (2,), "b/y": (3,), "c/z": (1,)}
    rules = WarmStart(unneeded=("b/*", "a/*"))
    (taken,) = plan_warm_start(small, small, rules)
    assert taken.origin is Origin.SAME  # This model has it.
    with pytest.raises(UsageError, match="c/z: .* nothing here"):
        plan_warm_start(large, small, rules)
    plan = plan_warm_start(large, small, WarmStart(unneeded=("b/*", "c/*")))
    assert listed(plan, large) == {
        "same": ["a/x"],
        "adapted": {},
        "fresh": [],
        "dropped": ["b/y", "c/z"],
    }
    with pytest.raises(UsageError, match="b/y: nothing there"):
        plan_warm_start(small, large, rules)


def test_the_list_for_json_tells_how_a_parameter_was_adapted(source, target):
    found = listed(plan_warm_start(source, target, RULES), source)
    assert found["fresh"] == ["head/bias", "head/kernel"] and len(found["same"]) == 37
    assert found["adapted"] == {
        "vision_embed/positions": {"from": [17, 32], "to": [65, 32], "by": "resize_positions"}
    }
    assert len(found["dropped"]) == len(source) - 38


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_values_lie_on_their_devices_and_what_is_not_adapted_is_bit_equal(target, mesh):
    init = init_classifier(model_config(image_size=64))
    declared = declarations(init)
    placement = param_shardings(declared.shapes, declared.info, tiny.mesh_of(*mesh))
    initial = jax.jit(lambda: nn.unbox(init(jax.random.key(1))), out_shardings=placement)()
    start = init_pretrained(model_config())
    arrays = by_name(jax.device_get(nn.unbox(jax.jit(start)(jax.random.key(0)))))
    read = []

    class Reader:
        def __getitem__(self, name):
            read.append(name)
            return arrays[name]

    plan = plan_warm_start({name: leaf.shape for name, leaf in arrays.items()}, target, RULES)
    found = apply_plan(plan, Reader(), initial)
    assert sorted(read) == sorted(names(plan, Origin.SAME) + names(plan, Origin.ADAPTED))
    jax.tree.map(lambda leaf, like: leaf.sharding == like.sharding or pytest.fail(), found, initial)
    found, fresh = by_name(found), by_name(initial)
    for name in names(plan, Origin.SAME):
        np.testing.assert_array_equal(found[name], arrays[name], err_msg=name)
    assert not np.array_equal(found["vision_embed/cls"], fresh["vision_embed/cls"])
    for name in names(plan, Origin.FRESH):
        np.testing.assert_array_equal(found[name], fresh[name])
    table = arrays["vision_embed/positions"]
    np.testing.assert_array_equal(
        found["vision_embed/positions"], resize_positions(table, (65, 32))
    )
