"""BEiT and BEiT v2 files: images compute what the file's own network computes, stated independently."""

import numpy as np
import pytest
import torch

from tests import tiny
from vlbeit_jax.convert import reference, verify
from vlbeit_jax.convert.source import open_run

WIDTH, DEPTH, HEADS, FFN, SIDE, PATCH, CODES = 128, 2, 2, 96, 32, 8, 40
GRID = SIDE // PATCH
ROWS = (2 * GRID - 1) ** 2 + 3


def published(fine_tuned, seed=0):
    """A state dict under BEiT's names: one bias table for all blocks in pretraining, one a block after fine-tuning."""
    rng = np.random.default_rng(seed)
    shapes = {"cls_token": (1, 1, WIDTH), "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH), "patch_embed.proj.bias": (WIDTH,)}
    for block in range(DEPTH):
        place = f"blocks.{block}"
        shapes |= {f"{place}.{name}": (WIDTH,) for name in ("gamma_1", "gamma_2", "attn.q_bias", "attn.v_bias", "attn.proj.bias")}
        shapes |= {f"{place}.{name}.{part}": (WIDTH,) for name in ("norm1", "norm2") for part in ("weight", "bias")}
        shapes |= {f"{place}.attn.qkv.weight": (3 * WIDTH, WIDTH), f"{place}.attn.proj.weight": (WIDTH, WIDTH)}
        shapes |= {f"{place}.mlp.fc1.weight": (FFN, WIDTH), f"{place}.mlp.fc1.bias": (FFN,)}
        shapes |= {f"{place}.mlp.fc2.weight": (WIDTH, FFN), f"{place}.mlp.fc2.bias": (WIDTH,)}
        if fine_tuned:
            shapes[f"{place}.attn.relative_position_bias_table"] = (ROWS, HEADS)
    if fine_tuned:
        shapes |= {"fc_norm.weight": (WIDTH,), "head.weight": (10, WIDTH)}
    else:
        shapes |= {"mask_token": (1, 1, WIDTH), "norm.weight": (WIDTH,), "norm.bias": (WIDTH,), "lm_head.weight": (CODES, WIDTH)}
        shapes |= {"lm_head.bias": (CODES,), "rel_pos_bias.relative_position_bias_table": (ROWS, HEADS)}
        shapes |= {"cls_pt_layers.0.norm1.weight": (WIDTH,)}
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    for name, value in tensors.items():
        if value.ndim in (2, 4) and "table" not in name:
            value /= np.float32(value[0].size) ** 0.5
        elif "norm" in name and name.endswith("weight"):
            value += 1
    return tensors


def reference_weights(tensors):
    """The same for the independent statement, which takes one table with a column a block and head."""
    w = {name: value.astype(np.float64) for name, value in tensors.items()}
    shared = w.get("rel_pos_bias.relative_position_bias_table")
    tables = [w.get(f"blocks.{block}.attn.relative_position_bias_table", shared) for block in range(DEPTH)]
    w["relative_position_bias_table"] = np.concatenate(tables, axis=1)
    return w | {"token_type_embeddings.weight": np.zeros((2, WIDTH)), "mask_token": w.get("mask_token", np.zeros(WIDTH))}


@pytest.mark.parametrize("fine_tuned", [False, True], ids=["pretrained", "fine-tuned"])
def test_images_compute_what_the_file_computes(tmp_path, fine_tuned):
    tensors = published(fine_tuned)
    torch.save({"model": {name: torch.tensor(value) for name, value in tensors.items()}}, tmp_path / "beit.pth")
    done = tiny.command(
        "vlbeit_jax.convert", f"--from={tmp_path / 'beit.pth'}", "--format=beit2", f"--out={tmp_path / 'run'}",
        f"--image_size={SIDE}", f"--codes={CODES}", "--vocabulary=300", "--text_positions=16",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fresh    text_embed/words: BEiT knows no texts" in done.stdout
    run = open_run(tmp_path / "run")
    params = verify.parameters(run.params)
    net = reference.Net(depth=DEPTH, heads=HEADS, grid=GRID, patch=PATCH, relative=True, text_positions=16)
    batches = verify.batches(run.model)
    batch = batches["image"] if fine_tuned else batches["image_masked"]
    hidden = np.zeros((len(batch["image"]), GRID * GRID), bool)
    if not fine_tuned:
        np.put_along_axis(hidden, batch["image_masked"], True, axis=1)
    weights = reference_weights(tensors)
    if fine_tuned:  # It has no last norm, and ours is fresh there: one and zero.
        weights |= {"norm.weight": np.ones(WIDTH), "norm.bias": np.zeros(WIDTH)}
    pixels = batch["image"] / 127.5 - 1
    wanted = reference.states(weights, net, image=pixels, masked=hidden)
    found = verify.ours(run.model, params, batch)
    assert np.abs(found["image"] - wanted[:, 1:]).max() < 1e-4
    other = reference.states(weights, reference.dataclasses.replace(net, tanh_gelu=True), image=pixels, masked=hidden)
    assert np.abs(found["image"] - other[:, 1:]).max() > 1e-4
    if not fine_tuned:
        logits = reference.linear(weights, "lm_head", np.take_along_axis(wanted[:, 1:], batch["image_masked"][..., None], axis=1))
        assert np.abs(found["image_logits"] - logits).max() < 1e-4
