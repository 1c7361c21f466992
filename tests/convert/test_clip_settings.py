"""A CLIP's activation comes from the configuration beside it or from a flag, never by guess."""

import json
import re

import pytest

from vlbeit_jax.convert.formats.clip_settings import find_settings
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.teacher import PIXELS

SIZES = {"vision_cfg": {"width": 768, "layers": 12, "patch_size": 16}, "text_cfg": {"width": 512}}
CLIPS_PIXELS = dict(zip(("mean", "std"), PIXELS["clip"], strict=True))
PLAIN = {"model_cfg": SIZES, "preprocess_cfg": CLIPS_PIXELS}
QUICK = {"model_cfg": SIZES | {"quick_gelu": True}, "preprocess_cfg": CLIPS_PIXELS}


def transformers(**vision):
    return {"model_type": "clip", "vision_config": vision}


def found(folder, files, **flags):
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return find_settings(folder / "x.pt", ImportOptions(**flags))


@pytest.mark.parametrize(
    ("files", "flags", "activation", "source"),
    [
        ({"open_clip_config.json": PLAIN}, {}, "gelu", "open_clip_config.json"),
        ({"open_clip_config.json": QUICK}, {}, "quick_gelu", "open_clip_config.json"),
        ({"config.json": SIZES}, {}, "gelu", "config.json"),
        ({"config.json": transformers(hidden_act="gelu")}, {}, "gelu", "config.json"),
        ({"config.json": transformers()}, {}, "quick_gelu", "config.json"),
        ({"config.json": {"model_type": "clip_vision_model"}}, {}, "quick_gelu", "config.json"),
        ({"config.json": {"model_type": "beit"}}, {"activation": "gelu"}, "gelu", "--activation"),
        ({}, {"activation": "quick_gelu"}, "quick_gelu", "--activation"),
        ({"open_clip_config.json": PLAIN}, {"activation": "gelu"}, "gelu", "open_clip_config.json"),
    ],
    ids=str,
)
def test_the_activation_is_told(tmp_path, files, flags, activation, source):
    settings = found(tmp_path, files, **flags)
    assert settings.activation == activation
    assert settings.notes == (f"the activation is {activation}, as {source} says",)


@pytest.mark.parametrize(
    "files", [{}, {"config.json": {"model_type": "beit"}}, {"config.json": []}]
)
def test_without_either_both_choices_are_named(tmp_path, files):
    with pytest.raises(UsageError) as refused:
        found(tmp_path, files)
    assert "--activation=quick_gelu for a network of OpenAI" in str(refused.value)
    assert "--activation=gelu for any other of open_clip" in str(refused.value)


def test_the_heads_are_told_too(tmp_path):
    """ViT-H has heads of 80, which 64 divides into another number of them."""
    wide = {"vision_cfg": {"width": 1280, "head_width": 80}}
    assert found(tmp_path, {"open_clip_config.json": wide}).options.heads == 16
    with pytest.raises(UsageError, match="says heads=16, but --heads or another .* says 20"):
        found(tmp_path, {}, heads=20)
    (tmp_path / "open_clip_config.json").unlink()
    said = transformers(num_attention_heads=12)
    assert found(tmp_path, {"config.json": said}).options.heads == 12


OTHER_PIXELS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


@pytest.mark.parametrize(
    ("files", "flags", "said"),
    [
        ({"open_clip_config.json": PLAIN}, {"activation": "quick_gelu"}, "Leave --activation out"),
        (
            {"open_clip_config.json": PLAIN, "config.json": transformers()},
            {},
            "config.json beside the file says activation=quick_gelu, but .* says gelu",
        ),
        (
            {"open_clip_config.json": PLAIN | {"preprocess_cfg": OTHER_PIXELS}},
            {},
            re.escape("takes pixels with mean [0.5, 0.5, 0.5]"),
        ),
        ({"config.json": transformers(hidden_act="gelu_new")}, {}, "hidden_act=gelu_new"),
    ],
)
def test_contradictions_and_other_networks_are_refused(tmp_path, files, flags, said):
    with pytest.raises(UsageError, match=said):
        found(tmp_path, files, **flags)


def test_a_damaged_configuration_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="config.json lies beside the file and cannot be read"):
        found(tmp_path, {}, activation="gelu")
