"""Tables map every parameter and every tensor, and errors name what is not mapped."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.convert.random_runs import random_tree
from vlbeit_jax.config.networks import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.convert.formats import (
    beit,
    clip,
    dalle,
    dino,
    hf_beit,
    torch_tables,
    vlmo_tables,
    vqkd,
)
from vlbeit_jax.convert.permutations import fused_qkv, split_qkv
from vlbeit_jax.convert.rules import Table, export, load, rule
from vlbeit_jax.convert.source import model_shapes, tree_shapes, visual_shapes
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.dalle import DalleConfig, DalleEncoder
from vlbeit_jax.models.teacher import ViTConfig
from vlbeit_jax.models.visual_tokenizer import tokenizer_shapes
from vlbeit_jax.models.vocabulary import padded_vocabulary
from vlbeit_jax.ops.attention import group_by_lanes
from vlbeit_jax.tasks.teachers import abstract_params

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
IMAGE_BIASES = (2 * 3 - 1) ** 2 + 3  # Rows of the relative biases that images use.
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


def model_arrays(config):
    """Random parameters with zeros where the vocabulary is padded."""
    arrays = random_tree(model_shapes(config))
    padded = {"text_embed/words": 0, "language_head/kernel": 1, "language_head/bias": 0}
    for name, axis in padded.items():
        np.moveaxis(arrays[name], axis, 0)[config.vocabulary :] = 0
    return arrays


def hf_table(config, arrays):
    return hf_beit.table(config, arrays, "beit.", "layernorm", "lm_head")


# Name of a case: (config, random arrays, table).
CASES = {}


def add_case(name, config, arrays_of, table_of):
    CASES[name] = (config, arrays_of, table_of)


for positions in ("absolute", "relative"):
    for scale in (0.1, 0.0):
        config = ModelConfig(**SMALL, positions=positions, layer_scale=scale)
        name = f"{positions}-{scale}"
        add_case(f"torch-{name}", config, model_arrays, lambda c, _: torch_tables.model_table(c))
        add_case(f"hf-{name}", config, model_arrays, hf_table)
relative = ModelConfig(**SMALL, positions="relative")
add_case("vlmo", relative, model_arrays, lambda c, _: vlmo_tables.table(c, ()))
for decoupled, sub_norm in ((True, True), (True, False), (False, True)):
    sizes = SMALL | {"fused_layers": 0 if decoupled else 2}
    config = ModelConfig(**sizes, decoupled=decoupled, sub_norm=sub_norm)
    name = f"torch-decoupled={decoupled}-sub_norm={sub_norm}"
    add_case(name, config, model_arrays, lambda c, _: torch_tables.model_table(c))
for name, table_of in (
    ("torch-vqkd", lambda c, _: torch_tables.vqkd_table(c)),
    ("vqkd", lambda c, _: vqkd.table(c, ())),
):
    add_case(name, VISUAL, lambda c: random_tree(visual_shapes(c)), table_of)
for name, table_of in (
    ("dalle", lambda c, _: dalle.table(c)),
    ("torch-dalle", lambda c, _: torch_tables.dalle_table(c)),
):
    small = DalleConfig(image_size=16, codes=9, width=8)
    add_case(
        name,
        small,
        lambda c: random_tree(tree_shapes(tokenizer_shapes(DalleEncoder(c))["params"])),
        table_of,
    )
for kind, table_of in (
    ("clip", lambda c, _: clip.table(c, ())),
    ("dino", lambda c, _: dino.table(c, ())),
):
    config = ViTConfig(kind, 12, 4, 24, 2, 3, 40, 10 if kind == "clip" else 24, "gelu")
    add_case(kind, config, lambda c: random_tree(tree_shapes(abstract_params(c))), table_of)


@pytest.mark.parametrize("case", CASES)
def test_a_round_trip_is_bit_identical(case):
    config, arrays_of, table_of = CASES[case]
    arrays = arrays_of(config)
    table = table_of(config, arrays)
    tensors = export(table, arrays)
    loaded, report = load(table, tensors, {name: value.shape for name, value in arrays.items()})
    assert set(loaded) == set(arrays) - set(table.left_out)
    assert set(report.fresh) == set(table.left_out)
    for name, value in loaded.items():
        expected = arrays[name]
        if name == "encoder/relative_positions" and case.startswith("hf"):
            # BEiT has no rows for text.
            value, expected = value[:IMAGE_BIASES], expected[:IMAGE_BIASES]
        elif name == "embed/patch/bias" and case == "clip":
            # CLIP's convolution has no bias.
            expected = np.zeros_like(expected)
        np.testing.assert_array_equal(value, expected, err_msg=name)
    again = export(table, loaded | {name: arrays[name] for name in table.left_out})
    assert list(again) == list(tensors)
    for name, value in again.items():
        np.testing.assert_array_equal(value, tensors[name], err_msg=name)


@pytest.mark.parametrize(("width", "heads"), [(256, 4), (24, 3)])
def test_a_fused_weight_has_the_columns_that_attention_reads(width, heads):
    # Query, key and value in PyTorch's form.
    weights = np.random.default_rng(0).normal(size=(3, width, width)).astype(np.float32)
    kernel = np.asarray(group_by_lanes(*(jnp.asarray(weight.T) for weight in weights), heads))
    fused = weights.reshape(3 * width, width)
    np.testing.assert_array_equal(fused_qkv(heads).load(fused)[0], kernel)
    np.testing.assert_array_equal(np.stack(split_qkv(heads).export(kernel)), weights)


@pytest.mark.parametrize("fine_tuned", [False, True])
def test_beit_files_start_the_image_side(fine_tuned):
    config = ModelConfig(**SMALL, positions="relative")
    shapes = model_shapes(config)
    rng = np.random.default_rng(0)
    of_pretraining = (beit.SHARED, "mask_token", "lm_head.weight", "norm.weight")
    marks = () if fine_tuned else of_pretraining
    tensors = {
        name: rng.standard_normal(value.shape, np.float32)
        for name, value in export(beit.table(config, marks, shapes), random_tree(shapes)).items()
    }
    ignored = {
        "rel_pos_bias.relative_position_index": np.zeros((10, 10)),
        "cls_pt_layers.0.norm1.weight": np.zeros(24),
    }
    tensors |= ignored
    params, report = load(beit.table(config, tensors, shapes), tensors, shapes)
    biases = params["encoder/relative_positions"]
    for block in range(3):
        name = beit.OWN.format(block=block) if fine_tuned else beit.SHARED
        np.testing.assert_array_equal(biases[:IMAGE_BIASES, block], tensors[name])
    assert not biases[IMAGE_BIASES:].any() and not params["vision_embed/type"].any()
    assert "text_embed/words" in report.fresh
    assert ("vision_head/kernel" in report.fresh) == fine_tuned
    assert set(report.dropped) == set(ignored)


TABLE = Table(
    [rule("a", "x"), rule("b", "y")],
    {"c": "not supported"},
    {"k": np.zeros(2, np.float32)},
    {"old": "unused"},
)
PARAMS = {"a": (2,), "b": (3,), "c": (1,)}
TENSORS = {"x": np.zeros(2), "y": np.zeros(3), "k": np.zeros(2), "old": np.zeros(7)}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"a": (2,), "b": (3,)}, "rules for parameters that do not exist: c"),
        (PARAMS | {"d": (1,), "e": (1,)}, "parameters without a rule: d, e"),
    ],
)
def test_parameters_and_rules_must_match(shapes, message):
    with pytest.raises(UsageError, match=message):
        export(TABLE, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


def test_a_parameter_in_two_rules_is_refused():
    with pytest.raises(UsageError, match="two rules: a"):
        load(Table([rule("a", "x"), rule("a", "y")]), {}, {"a": (2,)})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": None, "y": None}, "missing tensors: x, y"),
        ({"z": np.zeros(1), "w": np.zeros(1)}, "tensors that no rule uses: w, z"),
        (
            {"x": np.zeros(5), "y": np.zeros((3, 1))},
            r"x is \[5\], expected \[2\], y is \[3, 1\], expected \[3\]",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused_with_every_name(changed, message):
    tensors = {name: value for name, value in (TENSORS | changed).items() if value is not None}
    with pytest.raises(UsageError, match=message):
        load(TABLE, tensors, PARAMS)


def test_the_report_names_every_tensor_once():
    _, report = load(TABLE, TENSORS, PARAMS)
    assert str(report).splitlines() == [
        "matched  x",
        "matched  y",
        "fresh    c: not supported",
        "dropped  k: holds no values of ours",
        "dropped  old: unused",
    ]
    assert report.counts() == (
        "2 tensors became parameters, 1 parameter is fresh, 2 tensors were dropped"
    )


def test_the_padding_of_the_vocabulary_is_not_exported():
    config = ModelConfig(**SMALL)
    tensors = export(torch_tables.model_table(config), model_arrays(config))
    assert padded_vocabulary(150) == 256
    assert tensors["language_head.weight"].shape == (150, 24)
