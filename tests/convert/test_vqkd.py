"""Imported VQ-KD gives the tokens that two independent networks give."""

import dataclasses
import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests import tiny
from tests.convert.named import tensor_file
from tests.convert.random_runs import random_tree
from tests.models.published_weights import vqkd_weights
from tests.models.tiny_models import vit_nets
from tests.references import vlbeit as reference
from vlbeit_jax.config.networks import VisualTokenizerConfig
from vlbeit_jax.convert.formats import IMPORTS, vqkd
from vlbeit_jax.convert.formats.torch_module import STANDALONE
from vlbeit_jax.convert.formats.torch_tables import vqkd_table
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import export
from vlbeit_jax.convert.source import as_tree, read_visual, visual_shapes
from vlbeit_jax.convert.verify import module_of
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.visual_tokenizer import encode
from vlbeit_jax.tasks.visual_tokens import open_visual_tokens

CONFIG = VisualTokenizerConfig(
    image_size=32,
    patch_size=8,
    width=128,
    heads=2,
    ffn_width=96,
    encoder_depth=2,
    decoder_depth=1,
    codes=200,
    code_width=8,
    teacher="clip",
)


def published_tensors(config=CONFIG):
    """Tensors under BEiT v2's names, which the tests state themselves, without the table."""
    arrays = random_tree(visual_shapes(config))
    codebook = arrays.pop("codebook")
    codebook /= np.linalg.norm(codebook, axis=1, keepdims=True)
    weights = vqkd_weights(as_tree(arrays), codebook, config)
    weights = {
        name: value.reshape(1, 1, -1) if name.endswith("cls_token") else value
        for name, value in weights.items()
    }
    weights = {
        name: value[None] if name.endswith("pos_embed") else value
        for name, value in weights.items()
    }
    extra = {
        "quantize.cluster_size": np.ones(config.codes),
        "quantize.embedding.initted": np.ones(1),
        "scaling_layer.scale": np.ones(3),
    }
    return {name: np.asarray(value, np.float32) for name, value in (weights | extra).items()}


@pytest.fixture(scope="module")
def published():
    return published_tensors()


@pytest.fixture(scope="module")
def folder(published, tmp_path_factory):
    place = tmp_path_factory.mktemp("vqkd")
    save_file(
        {name: torch.tensor(value).contiguous() for name, value in published.items()},
        place / "vqkd.safetensors",
    )
    done = tiny.command(
        "vlbeit_jax.convert",
        f"--from={place / 'vqkd.safetensors'}",
        "--format=vqkd",
        f"--out={place / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    assert (
        "dropped  quantize.cluster_size: statistics of training" in done.stdout
        and "fresh" not in done.stdout
    )
    return place / "run"


def images(count=100):
    return np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_tokens_of_100_images_are_those_of_a_float64_statement(folder, published):
    visual = open_visual_tokens(folder)
    assert visual.tokenizer.config == CONFIG
    found = encode(visual.tokenizer, visual.frozen, jnp.asarray(images()))
    weights = {name: np.asarray(value, np.float64) for name, value in published.items()}
    _, wanted = reference.vqkd_encode(weights, vit_nets(CONFIG)[0], images() / 127.5 - 1)
    assert (np.asarray(found) == wanted).mean() >= 0.999 and len(np.unique(wanted)) > 20
    _, other = reference.vqkd_encode(
        weights, dataclasses.replace(vit_nets(CONFIG)[0], tanh_gelu=True), images() / 127.0 - 1
    )
    assert (np.asarray(found) == other).mean() < 0.999


def test_tokens_of_100_images_are_those_of_pytorch(folder):
    visual = open_visual_tokens(folder)
    ours = np.asarray(encode(visual.tokenizer, visual.frozen, jnp.asarray(images())))
    tensors, config = read_visual(folder)
    module = module_of(STANDALONE / "vlbeit_torch.py")
    settings = {name: getattr(config, name) for name in vars(config)} | {
        "target_width": 512,
        "layer_norm_eps": 1e-6,
    }
    network = module.VisualTokenizer(settings)
    state = {
        name: torch.tensor(np.ascontiguousarray(value))
        for name, value in export(vqkd_table(config), tensors).items()
    }
    network.load_state_dict(state, strict=True)
    with torch.no_grad():
        theirs = network.encode(
            module.normalise(torch.from_numpy(images()).permute(0, 3, 1, 2))
        ).numpy()
    assert (ours == theirs).mean() >= 0.999


def test_the_command_prints_tokens_and_compares_them(folder, tmp_path):
    picture = np.random.default_rng(2).integers(0, 256, (45, 60, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    arguments = [f"--from={folder}", f"--image={tmp_path / 'a.png'}", "--resize=40"]
    done = tiny.command("vlbeit_jax.visual_tokens", *arguments)
    assert done.returncode == 0, done.stderr
    tokens = json.loads(done.stdout)
    assert len(tokens) == 16 and all(0 <= token < 200 for token in tokens)
    (tmp_path / "same.json").write_text(json.dumps(tokens))
    (tmp_path / "other.json").write_text(json.dumps([1 + tokens[0], *tokens[1:]]))
    (tmp_path / "short.json").write_text("[1]")
    for name, code, said in (
        ("same", 0, "100.00% of 16"),
        ("other", 1, "93.75% of 16"),
        ("short", 2, ""),
        ("none", 2, ""),
    ):
        done = tiny.command(
            "vlbeit_jax.visual_tokens", *arguments, f"--expect={tmp_path / name}.json"
        )
        assert done.returncode == code and said in done.stdout, (name, done.stderr)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--image=none.png"], "--image=none.png"),
        (["--image={image}", "--resize=8"], "--resize=8"),
        (["--image={image}", "--from=nowhere"], "--from=nowhere"),
    ],
)
def test_the_command_refuses_what_it_cannot_read(folder, tmp_path, arguments, said):
    Image.fromarray(images(1)[0]).save(tmp_path / "a.png")
    done = tiny.command(
        "vlbeit_jax.visual_tokens",
        f"--from={folder}",
        *(a.format(image=tmp_path / "a.png") for a in arguments),
    )
    assert done.returncode == 2 and done.stderr.startswith(f"error: {said}"), done.stderr


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"decode_task_layer.2.weight": (100, 128)}, "decode_task_layer predicts 100 values"),
        (
            {"quantize.embedding.weight": None},
            "not a VQ-KD checkpoint: quantize.embedding.weight missing",
        ),
        ({"encoder.patch_embed.proj.weight": (100, 3, 8, 8)}, "100, is not a multiple of 64"),
        (
            {"encoder.pos_embed": (1, 15, 128)},
            r"encoder.pos_embed is \[1, 15, 128\], expected \[1, 17, 128\]",
        ),
        ({"encoder.mask_token": (1, 1, 128)}, "no rule uses: encoder.mask_token"),
    ],
    ids=str,
)
def test_files_that_do_not_fit_are_refused(published, tmp_path, changed, said):
    shapes = {name: value.shape for name, value in published.items()} | changed
    shapes = {name: shape for name, shape in shapes.items() if shape is not None}
    with pytest.raises(UsageError, match=said):
        IMPORTS["vqkd"].read(
            tensor_file(shapes, published), tmp_path / "vqkd.pth", ImportOptions(), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def nearest(features, codes):
    """As BEiT v2's ``NormEMAVectorQuantizer``: by Euclidean distance, codes as they are."""
    return ((features[:, None] - codes) ** 2).sum(-1).argmin(1)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_codes_that_half_precision_has_rounded_are_normalised_and_it_is_said(published, dtype):
    codes = published[vqkd.CODES]
    exact = TensorFile(published, {})
    assert vqkd.unit_codes(exact) is exact
    rounded = codes.astype(dtype).astype(np.float32)
    assert np.abs(np.linalg.norm(rounded, axis=1) - 1).max() > vqkd.EXACT
    file = vqkd.unit_codes(TensorFile({**published, vqkd.CODES: rounded}, {}))
    found = file.tensors[vqkd.CODES]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, unit(rounded.astype(np.float64)), atol=1e-7)
    assert "is normalised; rounding had moved the codes' lengths by up to" in file.notes[0]


@pytest.mark.parametrize("spread", [0.02, 1.0])
def test_codes_of_other_lengths_are_refused_because_their_tokens_are_others(published, spread):
    rng = np.random.default_rng(0)
    codes = published[vqkd.CODES] * rng.uniform(1, 1 + spread, (CONFIG.codes, 1)).astype(np.float32)
    with pytest.raises(UsageError, match=r"codes of lengths 1(\.0+\d)? to .* BEiT v2 keeps all"):
        vqkd.unit_codes(TensorFile({**published, vqkd.CODES: codes}, {}))
    features = unit(rng.standard_normal((2000, CONFIG.code_width)))
    theirs, ours = nearest(features, codes), (features @ unit(codes).T).argmax(1)
    assert (theirs != ours).mean() > 0.005
    same = unit(codes)  # Control: at length 1 both choose alike.
    assert (nearest(features, same) == (features @ same.T).argmax(1)).all()


def test_codes_that_were_never_set_are_refused(published, tmp_path):
    tensors = {**published, vqkd.CODES: np.zeros_like(published[vqkd.CODES])}
    with pytest.raises(UsageError, match="lengths 0 to 0, .* saved before its first step"):
        IMPORTS["vqkd"].read(
            TensorFile(tensors, {}), tmp_path / "vqkd.pth", ImportOptions(), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_heads_are_64_wide_unless_their_number_is_given(published):
    shapes = {name: value.shape for name, value in published.items()}
    assert (
        vqkd.config_of(shapes, ImportOptions()).heads,
        vqkd.config_of(shapes, ImportOptions(heads=8)).heads,
    ) == (2, 8)
    with pytest.raises(UsageError, match="3 heads do not divide"):
        vqkd.config_of(shapes, ImportOptions(heads=3))
