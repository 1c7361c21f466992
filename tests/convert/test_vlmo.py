"""Imported VLMo files compute what an independent network computes; misfits are refused."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests import tiny
from tests.convert.conftest import small_run
from tests.convert.named import randomised, tensor_file
from vlbeit_jax.convert import reference, verify
from vlbeit_jax.convert.formats import EXPORTS, IMPORTS, vlmo, vlmo_tables
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.convert.read_tensors import read_tensors
from vlbeit_jax.convert.source import as_tree, read_run
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Special

WIDTH, DEPTH, HEADS, FFN, SIDE, PATCH, WORDS, TEXTS = 32, 2, 4, 48, 32, 8, 310, 30
GRID = SIDE // PATCH
ROWS = (2 * GRID - 1) ** 2 + 3 + 2 + 2 * 196
HEADS_THERE = (
    "pooler.dense.weight",
    "mlm_score.bias",
    "itm_score.fc.weight",
    "itc_text_proj.fc.weight",
    "itc_vl_image_proj.fc.weight",
)
HEADS_THERE += (
    "logit_scale",
    "logit_vl_scale",
    "vqa_classifier.0.weight",
    "nlvr2_classifier.0.weight",
)
INDICES = (
    "relative_position_index",
    "text_relative_position_index",
    "text_imag_relative_position_index",
)


def published_shapes(indices=True):
    """Names and shapes as published: texts of 30, a bias table for 196, BERT's types, heads."""
    shapes = {
        "token_type_embeddings.weight": (2, WIDTH),
        "relative_position_bias_table": (ROWS, DEPTH * HEADS),
    }
    shapes |= {
        f"text_embeddings.{name}": (WIDTH,) for name in ("LayerNorm.weight", "LayerNorm.bias")
    }
    for name, rows in (("word", WORDS), ("position", TEXTS), ("token_type", 2)):
        shapes[f"text_embeddings.{name}_embeddings.weight"] = (rows, WIDTH)
    shapes |= {"text_embeddings.position_ids": (1, TEXTS), "transformer.cls_token": (1, 1, WIDTH)}
    shapes |= {
        "transformer.patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "transformer.patch_embed.proj.bias": (WIDTH,),
    }
    shapes |= {f"transformer.norm.{part}": (WIDTH,) for part in ("weight", "bias")}
    for block in range(DEPTH):
        place = f"transformer.blocks.{block}"
        shapes |= {
            f"{place}.{name}": (WIDTH,)
            for name in ("gamma_1", "gamma_2", "attn.q_bias", "attn.v_bias", "attn.proj.bias")
        }
        shapes |= {
            f"{place}.attn.qkv.weight": (3 * WIDTH, WIDTH),
            f"{place}.attn.proj.weight": (WIDTH, WIDTH),
        }
        shapes |= {f"{place}.norm1.{part}": (WIDTH,) for part in ("weight", "bias")}
        for expert in ("imag", "text", "vl")[: 2 + (block == DEPTH - 1)]:
            shapes |= {f"{place}.norm2_{expert}.{part}": (WIDTH,) for part in ("weight", "bias")}
            shapes |= {
                f"{place}.mlp_{expert}.fc1.weight": (FFN, WIDTH),
                f"{place}.mlp_{expert}.fc1.bias": (FFN,),
            }
            shapes |= {
                f"{place}.mlp_{expert}.fc2.weight": (WIDTH, FFN),
                f"{place}.mlp_{expert}.fc2.bias": (WIDTH,),
            }
    shapes |= dict.fromkeys(HEADS_THERE, (3,))
    image, text = GRID**2 + 1, TEXTS
    return shapes | {
        name: (length, length)
        for name, length in zip(INDICES, (image, text, image + text), strict=True)
        if indices
    }


def config_of(shapes, metadata=None, **flags):
    return vlmo.config_of(tensor_file(shapes, metadata=metadata), ImportOptions(**flags))


def test_images_texts_and_pairs_compute_what_the_file_computes(tmp_path):
    tensors = randomised(published_shapes())
    save_file(tensors, tmp_path / "vlmo.safetensors")
    done = tiny.command(
        "vlbeit_jax.convert",
        f"--from={tmp_path / 'vlmo.safetensors'}",
        "--format=vlmo",
        f"--out={tmp_path / 'run'}",
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    dropped = {
        line.split()[1].rstrip(":")
        for line in done.stdout.splitlines()
        if line.startswith("dropped")
    }
    of_bert = ("position_embeddings.weight", "token_type_embeddings.weight", "position_ids")
    assert dropped == {*HEADS_THERE, *INDICES, *(f"text_embeddings.{name}" for name in of_bert)}
    assert (
        f"note     row 0 of {vlmo_tables.INNER_TYPES} is added to {vlmo_tables.WORDS}"
        in done.stdout
    )
    assert_states(read_run(tmp_path / "run"), tensors, ("image", "text", "pair"))


def reference_states(tensors, batch):
    """States of VLMo's own network in float64, images first; BERT's row 0 is in the words."""
    weights = {
        name.removeprefix("transformer."): value.astype(np.float64)
        for name, value in tensors.items()
    }
    weights[vlmo_tables.WORDS] += weights[vlmo_tables.INNER_TYPES][0]
    net = reference.Net(
        depth=DEPTH, heads=HEADS, grid=GRID, patch=PATCH, fused=1, text_positions=196, relative=True
    )
    inputs = {"image": batch["image"] / 127.5 - 1} if "image" in batch else {}
    if "text" in batch:
        inputs |= {"ids": batch["text"], "valid": batch["text"] != Special.PAD}
    return reference.states(weights, net, **inputs)


def largest_differences(run, tensors, name):
    """Of the states of patches and of real word pieces, for one of ``random_batches``."""
    given = verify.random_batches(run.model)[name]
    batch = {key: value for key, value in given.items() if key in ("image", "text")}
    wanted = reference_states(tensors, batch)
    found = verify.jax_outputs(run.model, as_tree(run.params), batch)
    differences = {}
    if "image" in batch:
        differences["image"] = np.abs(found["image"] - wanted[:, 1 : GRID**2 + 1]).max()
    if "text" in batch:
        length, real = batch["text"].shape[1], batch["text"][:, 1:] != Special.PAD
        differences["text"] = np.abs(found["text"] - wanted[:, -length + 1 :])[real].max()
    return differences


def assert_states(run, tensors, names):
    for name in names:
        for modality, difference in largest_differences(run, tensors, name).items():
            assert difference < 1e-4, (name, modality)


@pytest.mark.parametrize(
    ("indices", "metadata", "flags"),
    [
        (True, {}, {}),
        (True, {}, {"image_size": SIDE, "text_positions": 196}),
        (False, {"grid": "4"}, {}),
        (False, {}, {}),
        (False, {}, {"image_size": SIDE}),
        (False, {}, {"text_positions": 196}),
    ],
)
def test_sizes_are_found(indices, metadata, flags):
    config = config_of(published_shapes(indices), metadata, **flags)
    assert (config.image_size, config.text_positions, config.heads, config.fused_layers) == (
        SIDE,
        196,
        HEADS,
        1,
    )


@pytest.mark.parametrize(
    ("indices", "flags", "said"),
    [
        (True, {"image_size": 16}, "--image_size=16, but the file has image_size=32"),
        (True, {"text_positions": 64}, "has 446 rows"),
        (
            False,
            {"image_size": 16},
            "do not fit images of 16 with texts of 196 or 30 word pieces. Give --image_size and",
        ),
        (False, {"image_size": 36}, "--image_size=36 is not a multiple of the patch size, 8"),
        (False, {"image_size": 160}, "has 446 rows"),
        (False, {"text_positions": 100}, "do not fit images of any size with texts of 100"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(indices, flags, said):
    with pytest.raises(UsageError, match=said):
        config_of(published_shapes(indices), **flags)


def test_a_table_that_fits_two_sizes_needs_the_flag():
    """17 x 17 patches with 196 word pieces have as many rows as 18 x 18 with 128."""
    shapes = published_shapes(False) | {
        "relative_position_bias_table": (33**2 + 5 + 2 * 196, DEPTH * HEADS)
    }
    shapes["text_embeddings.position_embeddings.weight"] = (128, WIDTH)
    with pytest.raises(UsageError, match="fit images of 136 or 144 with texts of 196 or 128"):
        config_of(shapes)
    for side, texts in ((136, 196), (144, 128)):
        assert (
            config_of(shapes, image_size=side).text_positions
            == config_of(shapes, {"grid": str(side // 8)}).text_positions
            == texts
        )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"relative_position_bias_table": None},
            "not a VLMo checkpoint: relative_position_bias_table missing",
        ),
        ({"relative_position_bias_table": (ROWS, 7)}, "7 columns, which 2 blocks"),
        ({"relative_position_bias_table": (ROWS, 6)}, "3 heads do not divide"),
        ({"relative_position_bias_table": (ROWS + 1, 8)}, "447 rows"),
        ({"transformer.patch_embed.proj.weight": (WIDTH, 3)}, r"proj.weight is \[32, 3\]"),
        ({"transformer.blocks.0.norm1.weight": None}, "norm1.weight missing"),
        (
            {"transformer.blocks.1.mlp_vl.fc2.bias": None},
            "missing tensors: transformer.blocks.1.mlp_vl.fc2.bias",
        ),
        ({"transformer.mask_token": (1, 1, WIDTH)}, "no rule uses: transformer.mask_token"),
        ({"transformer.cls_token": (WIDTH,)}, r"cls_token is \[32\], expected \[1, 1, 32\]"),
    ],
    ids=str,
)
def test_files_that_do_not_fit_are_refused(tmp_path, changed, said):
    shapes = {
        name: shape for name, shape in (published_shapes() | changed).items() if shape is not None
    }
    with pytest.raises(UsageError, match=said):
        IMPORTS["vlmo"].read(
            tensor_file(shapes), tmp_path / "vlmo.pt", ImportOptions(), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_the_check_knows_the_models_own_padding(tmp_path):
    run = small_run(tmp_path / "run", positions="relative", pad=1)
    EXPORTS["vlmo"].write(run, tmp_path)
    assert EXPORTS["vlmo"].check(run, tmp_path).summary()["max_abs"] < 1e-4


def test_exports_say_their_size_themselves(tmp_path):
    run = small_run(tmp_path / "run", positions="relative")
    EXPORTS["vlmo"].write(run, tmp_path)
    file = read_tensors(tmp_path / "vlmo.safetensors")
    assert file.metadata["grid"] == "4" and vlmo.config_of(file, ImportOptions()).image_size == 32
    with pytest.raises(UsageError, match="--image_size=16, but the file has image_size=32"):
        vlmo.config_of(file, ImportOptions(image_size=16))
