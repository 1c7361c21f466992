"""Imported CLIP and DINO teachers compute what transformers computes."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from tests import tiny
from tests.convert.named import tensor_file
from vlbeit_jax.convert.formats import IMPORTS
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.teacher import PIXELS, ViT, ViTConfig
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks import teachers
from vlbeit_jax.training.saved_run import IMPORTED_STEP, restore

SIDE, PATCH, WIDTH, DEPTH, FFN = 32, 8, 128, 2, 96
OUT = {"clip": 512, "dino": 768}


def randomised(network):
    """Every bias and scale random; large enough for keys' biases to matter if they did."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        scale = value.shape[-1] ** -0.5 if value.ndim > 1 else 0.3
        value.data = noise * scale + (1 if "norm" in name and name.endswith("weight") else 0)
    return network.eval()


def clip_network(quick=True):
    config = transformers.CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=FFN,
        projection_dim=OUT["clip"],
        num_hidden_layers=DEPTH,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        hidden_act="quick_gelu" if quick else "gelu",
        attn_implementation="eager",
    )
    return randomised(transformers.CLIPVisionModelWithProjection(config))


def clip_names(network):
    """OpenAI's names."""
    w = {
        name.removeprefix("vision_model."): value.data for name, value in network.named_parameters()
    }
    out = {
        "visual.class_embedding": w["embeddings.class_embedding"],
        "visual.positional_embedding": w["embeddings.position_embedding.weight"],
        "visual.conv1.weight": w["embeddings.patch_embedding.weight"],
        "visual.proj": w["visual_projection.weight"].T,
        "positional_embedding": torch.zeros(3, 4),
        "logit_scale": torch.zeros(()),
    }
    for theirs, ours in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post")):
        out |= {f"visual.{ours}.{part}": w[f"{theirs}.{part}"] for part in ("weight", "bias")}
    for block in range(DEPTH):
        old, new = f"encoder.layers.{block}", f"visual.transformer.resblocks.{block}"
        for part in ("weight", "bias"):
            out[f"{new}.attn.in_proj_{part}"] = torch.cat(
                [w[f"{old}.self_attn.{letter}_proj.{part}"] for letter in "qkv"]
            )
            out[f"{new}.attn.out_proj.{part}"] = w[f"{old}.self_attn.out_proj.{part}"]
            for theirs, ours in (
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                out[f"{new}.{ours}.{part}"] = w[f"{old}.{theirs}.{part}"]
    return out


def clip_features(network, pixels):
    states = network.vision_model(pixels).last_hidden_state[:, 1:]
    return network.visual_projection(network.vision_model.post_layernorm(states))


def dino_network(eps=1e-6):
    config = transformers.ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=FFN,
        num_hidden_layers=DEPTH,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        hidden_act="gelu",
        layer_norm_eps=eps,
        attn_implementation="eager",
    )
    return randomised(transformers.ViTModel(config, add_pooling_layer=False))


def dino_names(network):
    """The names of DINO's own code."""
    w = {name: value.data for name, value in network.named_parameters()}

    def find(*ends):
        return next(value for name, value in w.items() if all(end in name for end in ends))

    out = {
        "cls_token": find("cls_token"),
        "pos_embed": find("position_embeddings"),
        "patch_embed.proj.weight": find("projection.weight"),
        "patch_embed.proj.bias": find("projection.bias"),
        "norm.weight": w["layernorm.weight"],
        "norm.bias": w["layernorm.bias"],
        "head.last_layer.weight_g": torch.zeros(3),
    }
    names = {"norm1": "layernorm_before", "norm2": "layernorm_after"}
    state = network.state_dict()
    for block in range(DEPTH):
        layer = {
            name.split(f".{block}.", 1)[1]: value
            for name, value in state.items()
            if f".{block}." in name
        }

        def old(*ends, layer=layer):
            return next(value for name, value in layer.items() if name.endswith(ends))

        for part in ("weight", "bias"):
            qkv = [
                old(f"query.{part}", f"q_proj.{part}"),
                old(f"key.{part}", f"k_proj.{part}"),
                old(f"value.{part}", f"v_proj.{part}"),
            ]
            out[f"blocks.{block}.attn.qkv.{part}"] = torch.cat(qkv)
            out[f"blocks.{block}.attn.proj.{part}"] = old(
                f"attention.output.dense.{part}", f"o_proj.{part}"
            )
            out[f"blocks.{block}.mlp.fc1.{part}"] = old(f"intermediate.dense.{part}", f"fc1.{part}")
            out[f"blocks.{block}.mlp.fc2.{part}"] = next(
                value
                for name, value in layer.items()
                if name in (f"output.dense.{part}", f"mlp.fc2.{part}")
            )
            for ours, theirs in names.items():
                out[f"blocks.{block}.{ours}.{part}"] = old(f"{theirs}.{part}")
    return out


def dino_features(network, pixels):
    return network(pixels).last_hidden_state[:, 1:]


KINDS = {
    "clip": (clip_network, clip_names, clip_features),
    "dino": (dino_network, dino_names, dino_features),
}


def images(count=3):
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def features(kind, network):
    mean, deviation = (torch.tensor(values)[:, None, None] for values in PIXELS[kind])
    pixels = (torch.from_numpy(images()).permute(0, 3, 1, 2).float() / 255 - mean) / deviation
    with torch.no_grad():
        return KINDS[kind][2](network, pixels).numpy()


def imported(kind, network, folder, activation="quick_gelu"):
    path, out = folder / "x.safetensors", folder / "teacher"
    named = KINDS[kind][1](network)
    save_file({name: value.contiguous() for name, value in named.items()}, path)
    options = ImportOptions(activation=activation if kind == "clip" else None)
    IMPORTS[kind].run(path, options, out)
    return out


def our_features(folder, **changes):
    """What JAX computes with an imported teacher, and its description; ``changes`` are of it."""
    config = ViTConfig(**json.loads((folder / teachers.TEACHER_FILE).read_text()) | changes)
    params = restore(folder, IMPORTED_STEP, {"params": teachers.abstract_params(config)})["params"]
    with jax.default_matmul_precision("highest"):
        network = ViT(config, "float32")
        found = jax.jit(lambda p, x: network.apply({"params": p}, x))(params, jnp.asarray(images()))
    return np.asarray(found), config


@pytest.fixture(scope="module")
def clip_teacher(tmp_path_factory):
    return imported("clip", clip_network(), tmp_path_factory.mktemp("clip"))


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_transformers(kind, tmp_path):
    network = KINDS[kind][0]()
    found, config = our_features(imported(kind, network, tmp_path))
    assert dataclasses.asdict(config) == {
        "kind": kind,
        "image_size": SIDE,
        "patch_size": PATCH,
        "width": WIDTH,
        "depth": DEPTH,
        "heads": 2,
        "ffn_width": FFN,
        "out": OUT["clip"] if kind == "clip" else WIDTH,
        "activation": "quick_gelu" if kind == "clip" else "gelu",
    }
    wanted = features(kind, network)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()
    other = features(kind, clip_network(quick=False) if kind == "clip" else dino_network(eps=1e-3))
    assert np.abs(found - other).max() > 1e-3 * np.abs(wanted).max()


def test_clip_teaches_vqkd(world, clip_teacher, tmp_path):
    """Two steps of VQ-KD towards an imported CLIP."""
    config = tiny.vqkd_config(world, evaluate_every=3)
    teacher = {"teacher": "clip", "teacher_weights": str(clip_teacher)}
    train(tiny.changed(config, task={"model": teacher}), tmp_path / "run")
    lines = tiny.metrics_of(tmp_path / "run")
    assert lines[-1]["split"] == "validation" and 0 < lines[-1]["distillation/loss"] < 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"teacher": "clip"}, "teacher_weights"),
        ({"teacher": "dino"}, "kind is clip, needed is dino.*model.teacher=clip"),
        ({"teacher": "clip", "image_size": 64}, "image_size is 32, needed is 64.*image_size=32$"),
        ({"teacher": "clip", "teacher_width": 64}, "out is 512, needed is 64.*teacher_width=512$"),
        ({"teacher": "clip", "teacher_weights": "nowhere"}, "no imported teacher"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(world, clip_teacher, changed, said):
    weights = {} if said == "teacher_weights" else {"teacher_weights": str(clip_teacher)}
    visual = dataclasses.replace(tiny.vqkd_config(world).task.model, **weights | changed)
    with pytest.raises(UsageError, match=said):
        teachers.read_teacher(visual)


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        ("clip", {"visual.proj": None}, "not a clip checkpoint: visual.proj missing"),
        ("dino", {"norm.weight": None}, "not a dino checkpoint: norm.weight missing"),
        ("dino", {"pos_embed": (17, WIDTH)}, "not a dino checkpoint: pos_embed is"),
        (
            "clip",
            {"visual.conv1.weight": (100, 3, PATCH, PATCH)},
            "100, is not a multiple of 64",
        ),
        ("dino", {"blocks.1.norm1.bias": None}, "missing tensors: blocks.1.norm1.bias"),
        ("clip", {"visual.more": (3,)}, "no rule uses: visual.more"),
    ],
    ids=str,
)
def test_files_that_do_not_fit_are_refused(tmp_path, kind, changed, said):
    shapes = {
        name: tuple(value.shape) for name, value in KINDS[kind][1](KINDS[kind][0]()).items()
    } | changed
    shapes = {name: shape for name, shape in shapes.items() if shape is not None}
    with pytest.raises(UsageError, match=said):
        IMPORTS[kind].read(
            tensor_file(shapes),
            tmp_path / "x.pt",
            ImportOptions(activation="gelu" if kind == "clip" else None),
            tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()
