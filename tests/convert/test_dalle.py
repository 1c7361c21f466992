"""DALL-E's encoder: imported files compute what an independent PyTorch network computes."""

import dataclasses
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

from tests import tiny
from tests.convert.published_dalle import DEEP, SMALL, published, published_shapes, read
from vlbeit_jax.convert.formats import dalle
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.convert.read_tensors import read_tensors
from vlbeit_jax.convert.rules import export
from vlbeit_jax.convert.source import read_visual
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.dalle import DalleConfig, DalleEncoder
from vlbeit_jax.models.visual_tokenizer import encode, tokenizer_shapes
from vlbeit_jax.tasks.visual_tokens import open_visual_tokens


def torch_logits(w, image, config: DalleConfig, gain: float, pool=F.max_pool2d) -> np.ndarray:
    """[B, N, C] in float64, of pixels [B, 3, height, width] in [0, 1]."""

    def convolution(name, x):
        weight, bias = (torch.from_numpy(w[f"{name}.{part}"]).double() for part in "wb")
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    x = convolution("blocks.input", 0.8 * image + 0.1)
    for group in range(1, config.groups + 1):
        for block in range(1, config.blocks + 1):
            place, y = f"blocks.group_{group}.block_{block}", x
            for number in range(1, 5):
                y = convolution(f"{place}.res_path.conv_{number}", F.relu(y))
            x = (convolution(f"{place}.id_path", x) if f"{place}.id_path.w" in w else x) + gain * y
        x = pool(x, 2) if group < config.groups else x
    return convolution("blocks.output.conv", F.relu(x)).flatten(2).transpose(1, 2).numpy()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_there_and_back_is_the_same_bits(tmp_path, suffix):
    arrays, file = published(DEEP), tmp_path / f"encoder.{suffix}"
    if suffix == "pth":
        torch.save({name: torch.from_numpy(value) for name, value in arrays.items()}, file)
    else:
        save_file(arrays, file)
    done = tiny.command(
        "vlbeit_jax.convert",
        f"--from={file}",
        "--format=dalle",
        f"--out={tmp_path / 'out'}",
        "--image_size=64",
    )
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.count("matched") == len(arrays)
        and "fresh" not in done.stdout
        and "task.visual_tokenizer" in done.stdout
    )
    back = export(dalle.table(DEEP), read_visual(tmp_path / "out").params)
    assert back.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)
    assert json.loads((tmp_path / "out" / "dalle.json").read_text()) == dataclasses.asdict(DEEP)


def noisy_squares(side: int) -> np.ndarray:
    """Images whose parts differ enough to get different tokens."""
    rng = np.random.default_rng(1)
    colours = rng.integers(0, 2, (24, 4, 4, 3)) * 150 + rng.integers(0, 50, (24, 1, 1, 3))
    return (
        colours.repeat(side // 4, axis=1).repeat(side // 4, axis=2)
        + rng.integers(0, 56, (24, side, side, 3))
    ).astype(np.uint8)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return open_visual_tokens(read(tmp_path_factory.mktemp("deep"), DEEP))


@pytest.mark.parametrize("larger", [1, 2, 3])
def test_logits_and_tokens_are_those_of_an_independent_statement(opened, larger):
    """At the encoder's own size, and of larger views, which are averaged over squares."""
    image = noisy_squares(32 * larger)
    pixels = F.avg_pool2d(torch.from_numpy(image).permute(0, 3, 1, 2).double() / 255, larger)
    wanted = torch_logits(published(DEEP), pixels, DEEP, 1 / 64)
    found = np.asarray(jax.jit(opened.tokenizer.apply)(opened.frozen, jnp.asarray(image)))
    assert (
        found.shape == (24, 16, 50) and np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    )
    tokens = np.asarray(encode(opened.tokenizer, opened.frozen, jnp.asarray(image)))
    np.testing.assert_array_equal(tokens, wanted.argmax(-1))
    assert len(np.unique(tokens)) > 15


@pytest.mark.parametrize(
    "change",
    [{"gain": 1.0}, {"gain": 1 / 8}, {"gain": 0.0}, {"pool": F.avg_pool2d}, {"shift": 0.1}],
    ids=str,
)
def test_another_network_is_told_apart(opened, change):
    image = noisy_squares(32)
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2).double() / 255 + change.get("shift", 0.0)
    other = torch_logits(
        published(DEEP), pixels, DEEP, change.get("gain", 1 / 64), change.get("pool", F.max_pool2d)
    )
    found = np.asarray(jax.jit(opened.tokenizer.apply)(opened.frozen, jnp.asarray(image)))
    assert (
        np.abs(found - other).max() > 1e-3 * np.abs(other).max()
        and (found.argmax(-1) != other.argmax(-1)).any()
    )


def test_the_full_network_has_the_published_names_and_size():
    """Input, groups of 256, 512, 1024 and 2048 with an inner quarter, output to 8192 codes."""

    def block(i, o):
        return (9 * i + 18 * (o // 4) + o + 3) * (o // 4) + o + (0 if i == o else i * o + o)

    widths = [256, 256, 512, 1024, 2048]
    count = (
        (49 * 3 + 1) * 256
        + (2048 + 1) * 8192
        + sum(block(i, o) + block(o, o) for i, o in zip(widths, widths[1:], strict=False))
    )
    params = tokenizer_shapes(DalleEncoder(DalleConfig()))["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == count == 53_786_240
    assert (
        dalle.config_of(published_shapes(DalleConfig()), ImportOptions()) == DalleConfig()
        and DalleConfig().grid == 14
    )
    published_names = {name for each in dalle.table(DalleConfig()).rules for name in each.torch}
    assert published_names == published_shapes(DalleConfig()).keys() and len(
        published_names
    ) == 2 * (1 + 4 * 8 + 3 + 1)


def test_a_file_of_something_else_is_refused(tmp_path):
    for kept, said in (
        ("blocks.g", "blocks.input.w, blocks.output.conv.w missing"),
        ("blocks.[io]", "group_1.block_1"),
    ):
        arrays = {name: value for name, value in published(SMALL).items() if re.match(kept, name)}
        with pytest.raises(UsageError, match=said):
            dalle.config_of({name: value.shape for name, value in arrays.items()}, ImportOptions())
    decoder = published(SMALL) | {"blocks.input.w": np.zeros((8, 32, 1, 1), np.float32)}
    with pytest.raises(
        UsageError, match=r"blocks.input.w is \[8, 32, 1, 1\], expected \[8, 3, 7, 7\]"
    ):
        read(tmp_path, SMALL, decoder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    arrays = published(SMALL)
    arrays["blocks.input.w"][0, 0, 0, 0] = value
    with pytest.raises(UsageError, match="input/kernel: .* not finite"):
        read(tmp_path, SMALL, arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.safetensors"]


def test_images_of_broken_patches_are_refused():
    assert dalle.config_of(published_shapes(DEEP), ImportOptions(image_size=64)).image_size == 32
    with pytest.raises(
        UsageError, match="--image_size=100 is not a multiple of the patch size, 16"
    ):
        dalle.config_of(published_shapes(DEEP), ImportOptions(image_size=100))


def test_a_pickled_module_is_refused_with_the_way_out(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "encoder.pkl")
    with pytest.raises(
        UsageError,
        match=r"encoder.pkl: refused.*torch.load\(.*encoder.pkl', .*weights_only=False\)",
    ):
        read_tensors(tmp_path / "encoder.pkl")
