"""BEiT-3's files: published ones by the facts of the network, ours by what is noted in them."""

import dataclasses

import pytest

from tests.convert.conftest import small_run
from tests.convert.named import randomised, tensor_file
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.formats import EXPORTS, IMPORTS, beit3
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.convert.read_tensors import read_tensors
from vlbeit_jax.convert.source import read_run
from vlbeit_jax.errors import UsageError

WIDTH, DEPTH, FFN, GRID, PATCH, WORDS, TEXTS = 128, 2, 48, 4, 8, 300, 16
HEADS_THERE = (
    "pooler.norm.weight",
    "head.0.weight",
    "vision_head.weight",
    "language_head.weight",
    "logit_scale",
)


def published_shapes(inner_norms=True):
    """Of a fine-tuned file, which has a head for images, none for texts and several of its own."""
    shapes = {
        "beit3.text_embed.weight": (WORDS, WIDTH),
        "mim_head.weight": (40, WIDTH),
        "mim_head.bias": (40,),
    }
    shapes |= {f"beit3.vision_embed.{name}": (1, 1, WIDTH) for name in ("cls_token", "mask_token")}
    shapes |= {
        "beit3.vision_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "beit3.vision_embed.proj.bias": (WIDTH,),
    }
    for side, rows in (("A", GRID**2 + 1), ("B", TEXTS)):
        shapes[f"beit3.encoder.embed_positions.{side}.weight"] = (rows + 2, WIDTH)
        norms = {f"layer_norm.{side}": WIDTH}
        for block in range(DEPTH):
            place = f"layers.{block}"
            norms |= {f"{place}.{name}_layer_norm.{side}": WIDTH for name in ("self_attn", "final")}
            if inner_norms:
                norms |= {
                    f"{place}.self_attn.inner_attn_ln.{side}": WIDTH,
                    f"{place}.ffn.{side}.ffn_layernorm": FFN,
                }
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                there = f"beit3.encoder.{place}.self_attn.{name}.{side}"
                shapes |= {f"{there}.weight": (WIDTH, WIDTH), f"{there}.bias": (WIDTH,)}
            for name, o, i in (("fc1", FFN, WIDTH), ("fc2", WIDTH, FFN)):
                there = f"beit3.encoder.{place}.ffn.{side}.{name}"
                shapes |= {f"{there}.weight": (o, i), f"{there}.bias": (o,)}
        shapes |= {
            f"beit3.encoder.{name}.{part}": (size,)
            for name, size in norms.items()
            for part in ("weight", "bias")
        }
    return shapes | dict.fromkeys(HEADS_THERE, (3,))


@pytest.mark.parametrize("flags, heads", [({}, 2), ({"heads": 4}, 4)], ids=str)
@pytest.mark.parametrize("inner_norms", [True, False])
def test_a_published_file_gives_what_it_holds(tmp_path, inner_norms, flags, heads):
    tensors = randomised(published_shapes(inner_norms))
    file = tensor_file(published_shapes(inner_norms), tensors)
    report = IMPORTS["beit3"].read(
        file, tmp_path / "beit3.pth", ImportOptions(**flags), tmp_path / "run"
    )
    assert set(report.dropped) == set(HEADS_THERE) and set(report.fresh) == {
        "language_head/kernel",
        "language_head/bias",
    }
    run = read_run(tmp_path / "run")
    assert run.model == ModelConfig(
        image_size=GRID * PATCH,
        patch_size=PATCH,
        width=WIDTH,
        depth=DEPTH,
        heads=heads,
        ffn_width=FFN,
        fused_layers=0,
        text_positions=TEXTS,
        layer_scale=0.0,
        norm_eps=1e-5,
        sub_norm=inner_norms,
        decoupled=True,
        vocabulary=WORDS,
        pad=1,
        codes=40,
    )
    for ours, theirs in (
        ("text_embed/positions", tensors["beit3.encoder.embed_positions.B.weight"][2:]),
        (
            "encoder/block_1/language/up/kernel",
            tensors["beit3.encoder.layers.1.ffn.B.fc1.weight"].T,
        ),
        ("encoder/vision_norm/bias", tensors["beit3.encoder.layer_norm.A.bias"]),
    ):
        assert (run.params[ours] == theirs).all(), ours
    EXPORTS["beit3"].require(run)
    EXPORTS["beit3"].write(run, tmp_path)
    again = read_tensors(tmp_path / "beit3.safetensors").tensors
    for name in tensors.keys() - set(HEADS_THERE):
        value = tensors[name].copy()
        if "embed_positions" in name:
            value[:2] = 0  # Rows that no token is at.
        assert (again[name] == value).all(), name


@pytest.mark.parametrize("inner_norms", [True, False])
def test_our_decoupled_models_come_back_as_they_were(tmp_path, inner_norms):
    """Heads of 8, another epsilon and padding: nothing that a shape says."""
    model = {
        "decoupled": True,
        "sub_norm": inner_norms,
        "layer_scale": 0.0,
        "fused_layers": 0,
        "norm_eps": 3e-6,
        "pad": 2,
    }
    run = small_run(tmp_path / "run", **model)
    EXPORTS["beit3"].require(run)
    EXPORTS["beit3"].write(run, tmp_path)
    file = read_tensors(tmp_path / "beit3.safetensors")
    IMPORTS["beit3"].read(file, tmp_path / "beit3.safetensors", ImportOptions(), tmp_path / "again")
    again = read_run(tmp_path / "again")
    assert (
        dataclasses.replace(again.model, drop_path=run.model.drop_path) == run.model
        and again.params.keys() == run.params.keys()
    )
    with pytest.raises(UsageError, match="--heads=2, but the file has heads=4"):
        beit3.config_of(file, ImportOptions(heads=2))


@pytest.mark.parametrize("name", ["beit3.safetensors", "beit3_fusion.safetensors"])
def test_the_two_parts_of_a_shared_model_are_refused(tmp_path, name):
    EXPORTS["beit3"].write(small_run(tmp_path / "run"), tmp_path)
    with pytest.raises(UsageError, match="shared attention"):
        beit3.config_of(read_tensors(tmp_path / name), ImportOptions())


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        ({}, False),
        ({"decoupled": True, "layer_scale": 0.0, "fused_layers": 0}, False),
        ({"decoupled": True, "sub_norm": True, "fused_layers": 0}, True),
        ({"sub_norm": True, "layer_scale": 0.0}, True),
        ({"positions": "relative"}, True),
    ],
    ids=str,
)
def test_what_torchscale_cannot_say_is_refused(tmp_path, model, refused):
    run = small_run(tmp_path / "run", **model)
    if not refused:
        EXPORTS["beit3"].require(run)
        return
    with pytest.raises(UsageError, match="--to=beit3 does not support task.model"):
        EXPORTS["beit3"].require(run)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"sub_norm": True}, "model.sub_norm=True; export with --to=torch"),
        (
            {"decoupled": True, "fused_layers": 0, "layer_scale": 0.0},
            "decoupled=True; export with --to=torch or --to=beit3",
        ),
    ],
)
def test_formats_that_have_it_are_named(tmp_path, model, said):
    with pytest.raises(UsageError, match=said):
        EXPORTS["hf-beit"].require(small_run(tmp_path / "run", **model))


PLACES = "beit3.encoder.embed_positions.A.weight"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({PLACES: None}, f"not a BEiT-3 checkpoint: {PLACES} missing"),
        ({PLACES: (18, WIDTH)}, "18 rows, which no square"),
        ({"beit3.vision_embed.proj.weight": (100, 3, PATCH, PATCH)}, "100, is not a multiple"),
        ({"mim_head.bias": None}, "missing tensors: mim_head.bias"),
        ({"beit3.encoder.layers.1.ffn.B.fc1.bias": (3,)}, r"fc1.bias is \[3\], expected \[48\]"),
        ({"beit3.more": (3,)}, "no rule uses: beit3.more"),
    ],
    ids=str,
)
def test_files_that_do_not_fit_are_refused(tmp_path, changed, said):
    shapes = {
        name: shape for name, shape in (published_shapes() | changed).items() if shape is not None
    }
    with pytest.raises(UsageError, match=said):
        IMPORTS["beit3"].read(
            tensor_file(shapes), tmp_path / "beit3.pth", ImportOptions(), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()
