"""Tables are total, and say by name what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.convert.random_runs import random_tree
from vlbeit_jax.config import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.convert.formats import beit, dalle, hf_beit, torch_tables, vit, vlmo, vqkd
from vlbeit_jax.convert.layouts import fused_qkv, split_qkv
from vlbeit_jax.convert.rules import Changed, Table, exported, imported, rule
from vlbeit_jax.convert.source import model_shapes, visual_shapes
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.dalle import DalleConfig
from vlbeit_jax.models.teacher import ViTConfig
from vlbeit_jax.models.vocabulary import padded_vocabulary
from vlbeit_jax.ops.attention import group_by_lanes
from vlbeit_jax.tasks.teachers import abstract_params
from vlbeit_jax.tasks.visual_tokens import dalle_params
from vlbeit_jax.training.checkpoint import leaf_name

SMALL = {
    "image_size": 12,
    "patch_size": 4,
    "width": 24,
    "depth": 3,
    "heads": 3,
    "ffn_width": 40,
    "fused_layers": 2,
    "text_positions": 9,
    "vocabulary": 150,
    "codes": 50,
}
VISUAL = VisualTokenizerConfig(
    image_size=12,
    patch_size=4,
    width=24,
    heads=3,
    ffn_width=40,
    encoder_depth=2,
    decoder_depth=1,
    codes=20,
    code_width=6,
)


class Arrays:
    """Arrays in memory, as a source of tensors."""

    def __init__(self, arrays):
        self._arrays = arrays
        self.shapes = {name: value.shape for name, value in arrays.items()}

    def __getitem__(self, name):
        return self._arrays[name]


def model_arrays(config):
    """Random parameters with zeros where the vocabulary is padded."""
    arrays = random_tree(model_shapes(config))
    for name, axis in {
        "text_embed/words": 0,
        "language_head/kernel": 1,
        "language_head/bias": 0,
    }.items():
        np.moveaxis(arrays[name], axis, 0)[config.vocabulary :] = 0
    return arrays


def shapes_of(params):
    return {
        leaf_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


CASES = {}
for positions in ("absolute", "relative"):
    for scale in (0.1, 0.0):
        config = ModelConfig(**SMALL, positions=positions, layer_scale=scale)
        CASES[f"torch-{positions}-{scale}"] = (
            config,
            model_arrays,
            lambda c, names: torch_tables.model_table(c),
        )
        CASES[f"hf-{positions}-{scale}"] = (
            config,
            model_arrays,
            lambda c, names: hf_beit.table(c, names, "beit.", "layernorm", "lm_head"),
        )
CASES["vlmo"] = (
    ModelConfig(**SMALL, positions="relative"),
    model_arrays,
    lambda c, names: vlmo.table(c, {}),
)
for decoupled, sub_norm in ((True, True), (True, False), (False, True)):
    config = ModelConfig(
        **SMALL | {"fused_layers": 0 if decoupled else 2}, decoupled=decoupled, sub_norm=sub_norm
    )
    CASES[f"torch-decoupled={decoupled}-sub_norm={sub_norm}"] = (
        config,
        model_arrays,
        lambda c, names: torch_tables.model_table(c),
    )
CASES["torch-vqkd"] = (
    VISUAL,
    lambda c: random_tree(visual_shapes(c)),
    lambda c, names: torch_tables.vqkd_table(c),
)
CASES["vqkd"] = (
    VISUAL,
    lambda c: random_tree(visual_shapes(c)),
    lambda c, names: vqkd.table(c, {}),
)
for name, table in (("dalle", dalle.table), ("torch-dalle", torch_tables.dalle_table)):
    config = DalleConfig(image_size=16, codes=9, width=8)
    CASES[name] = (
        config,
        lambda c: random_tree(shapes_of(dalle_params(c))),
        lambda c, names, table=table: table(c),
    )
for kind, table in (("clip", vit.clip_table), ("dino", vit.dino_table)):
    config = ViTConfig(kind, 12, 4, 24, 2, 3, 40, 10 if kind == "clip" else 24)
    CASES[kind] = (
        config,
        lambda c: random_tree(shapes_of(abstract_params(c))),
        lambda c, names, table=table: table(c, {}),
    )


@pytest.mark.parametrize("case", CASES)
def test_there_and_back_is_the_same_bits(case):
    config, arrays_of, table_of = CASES[case]
    arrays = arrays_of(config)
    table = table_of(config, arrays)
    theirs = {
        each.name: np.ascontiguousarray(each.read()) for each in exported(table, Arrays(arrays))
    }
    found, report = imported(
        table, Arrays(theirs), {name: value.shape for name, value in arrays.items()}
    )
    back = dict(found)
    assert set(back) == set(arrays) - set(table.left_out) and set(report.fresh) == set(
        table.left_out
    )
    for name, value in back.items():
        if name == "encoder/relative_positions" and case.startswith(
            "hf"
        ):  # Rows of texts have no place there.
            value, wanted = value[: (2 * 3 - 1) ** 2 + 3], arrays[name][: (2 * 3 - 1) ** 2 + 3]
        elif name == "embed/patch/bias" and case == "clip":  # CLIP's convolution has none.
            wanted = np.zeros_like(arrays[name])
        else:
            wanted = arrays[name]
        np.testing.assert_array_equal(value, wanted, err_msg=name)
    again = {
        each.name: each.read()
        for each in exported(table, Arrays(back | {n: arrays[n] for n in table.left_out}))
    }
    for name, value in again.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


@pytest.mark.parametrize(("width", "heads"), [(256, 4), (24, 3)])
def test_a_fused_weight_has_the_columns_that_attention_takes(width, heads):
    weights = (
        np.random.default_rng(0).normal(size=(3, width, width)).astype(np.float32)
    )  # Query, key, value as PyTorch has them.
    ours = np.asarray(group_by_lanes(*(jnp.asarray(weight.T) for weight in weights), heads))
    np.testing.assert_array_equal(fused_qkv(heads).back(weights.reshape(3 * width, width))[0], ours)
    np.testing.assert_array_equal(np.stack(split_qkv(heads).there(ours)), weights)


@pytest.mark.parametrize("fine_tuned", [False, True])
def test_beit_files_start_the_image_side(fine_tuned):
    config = ModelConfig(**SMALL, positions="relative")
    names = model_shapes(config)
    rng = np.random.default_rng(0)
    shared = {} if fine_tuned else {beit.SHARED: (28, 3)}
    marker = shared | ({} if fine_tuned else {"mask_token": (1, 1, 24)})
    blank = {
        each.name: each.shape
        for each in exported(beit.table(config, marker, names), Arrays(random_tree(names)))
    }
    theirs = {name: rng.standard_normal(shape, np.float32) for name, shape in blank.items()}
    theirs |= {
        "rel_pos_bias.relative_position_index": np.zeros((10, 10)),
        "cls_pt_layers.0.norm1.weight": np.zeros(24),
    }
    found, report = imported(
        beit.table(config, {n: v.shape for n, v in theirs.items()}, names), Arrays(theirs), names
    )
    arrays = dict(found)
    for block in range(3):
        name = beit.SHARED if not fine_tuned else beit.OWN.format(block=block)
        np.testing.assert_array_equal(
            arrays["encoder/relative_positions"][:28, block], theirs[name]
        )
    assert (
        not arrays["encoder/relative_positions"][28:].any()
        and not arrays["vision_embed/type"].any()
    )
    assert (
        "text_embed/words" in report.fresh and ("vision_head/kernel" in report.fresh) == fine_tuned
    )
    assert set(report.dropped) == {
        "rel_pos_bias.relative_position_index",
        "cls_pt_layers.0.norm1.weight",
    }


TABLE = Table(
    [rule("a", "x"), rule("b", "y")],
    {"c": "no place"},
    {"k": np.zeros(2, np.float32)},
    {"old": "unused"},
)
OURS = {"a": (2,), "b": (3,), "c": (1,)}


@pytest.mark.parametrize(
    "shapes, said",
    [
        ({"a": (2,), "b": (3,)}, "rules for parameters that do not exist: c"),
        (OURS | {"d": (1,), "e": (1,)}, "parameters without a rule: d, e"),
    ],
)
def test_parameters_and_rules_must_meet(shapes, said):
    with pytest.raises(UsageError, match=said):
        list(
            exported(
                TABLE, Arrays({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
            )
        )


def test_a_parameter_in_two_rules_is_refused():
    with pytest.raises(UsageError, match="two rules: a"):
        imported(Table([rule("a", "x"), rule("a", "y")]), Arrays({}), {"a": (2,)})


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"x": None, "y": None}, "tensors that are missing: x, y"),
        ({"z": np.zeros(1), "w": np.zeros(1)}, "tensors that nothing uses: w, z"),
        (
            {"x": np.zeros(5), "y": np.zeros((3, 1))},
            r"x is \[5\], not \[2\], y is \[3, 1\], not \[3\]",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused_with_every_name(changed, said):
    theirs = {"x": np.zeros(2), "y": np.zeros(3), "k": np.zeros(2), "old": np.zeros(7)} | changed
    with pytest.raises(UsageError, match=said):
        imported(
            TABLE,
            Arrays({name: value for name, value in theirs.items() if value is not None}),
            OURS,
        )


def test_the_report_names_every_tensor_once():
    theirs = {"x": np.zeros(2), "y": np.zeros(3), "k": np.zeros(2), "old": np.zeros(7)}
    _, report = imported(TABLE, Arrays(theirs), OURS)
    assert sorted(str(report).splitlines()) == sorted(
        [
            "matched  x",
            "matched  y",
            "fresh    c: no place",
            "dropped  k: carries nothing",
            "dropped  old: unused",
        ]
    )


def test_changes_are_made_when_asked_for():
    base = Arrays({"a": np.ones(2), "b": np.ones(2)})
    changed = Changed(base, {"a": lambda tensors: tensors["a"] + tensors["b"]})
    assert (
        changed["a"].tolist() == [2, 2]
        and changed["b"].tolist() == [1, 1]
        and base["a"].tolist() == [1, 1]
    )


def test_exports_read_one_rule_at_a_time():
    reads = []

    class Watched(Arrays):
        def __getitem__(self, name):
            reads.append(name)
            return super().__getitem__(name)

    config = ModelConfig(**SMALL)
    stream = exported(torch_tables.model_table(config), Watched(model_arrays(config)))
    tensors = list(stream)
    assert not reads
    tensors[0].read()
    assert len(reads) == 1
    assert padded_vocabulary(150) == 256 and dict((t.name, t.shape) for t in tensors)[
        "language_head.weight"
    ] == (150, 24)
