"""Imported BEiT and BEiT v2 files compute what an independent network computes from them."""

import argparse

import numpy as np
import pytest
import torch

from tests.convert.named import randomised, tensor_file
from vlbeit_jax.convert import reference, verify
from vlbeit_jax.convert.formats import IMPORTS
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.convert.source import as_tree, read_run
from vlbeit_jax.errors import UsageError

WIDTH, DEPTH, HEADS, FFN, SIDE, PATCH, CODES = 128, 2, 2, 96, 32, 8, 40
GRID = SIDE // PATCH
ROWS = (2 * GRID - 1) ** 2 + 3


def published(fine_tuned, pool="mean"):
    """A state dict under BEiT's names.

    Pretrained files have one bias table for all blocks, fine-tuned ones have one per block. Those
    that classify CLS keep the last norm; those that classify the patches' mean have another one.
    The pretrained one is BEiT v2's with a head of its own for CLS (``shared_lm_head`` off).
    """
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
    }
    for block in range(DEPTH):
        place = f"blocks.{block}"
        shapes |= {
            f"{place}.{name}": (WIDTH,)
            for name in ("gamma_1", "gamma_2", "attn.q_bias", "attn.v_bias", "attn.proj.bias")
        }
        shapes |= {
            f"{place}.{name}.{part}": (WIDTH,)
            for name in ("norm1", "norm2")
            for part in ("weight", "bias")
        }
        shapes |= {
            f"{place}.attn.qkv.weight": (3 * WIDTH, WIDTH),
            f"{place}.attn.proj.weight": (WIDTH, WIDTH),
        }
        shapes |= {f"{place}.mlp.fc1.weight": (FFN, WIDTH), f"{place}.mlp.fc1.bias": (FFN,)}
        shapes |= {f"{place}.mlp.fc2.weight": (WIDTH, FFN), f"{place}.mlp.fc2.bias": (WIDTH,)}
        if fine_tuned:
            shapes[f"{place}.attn.relative_position_bias_table"] = (ROWS, HEADS)
    if fine_tuned:
        last = "norm" if pool == "cls" else "fc_norm"
        shapes |= {f"{last}.weight": (WIDTH,), f"{last}.bias": (WIDTH,)}
        shapes |= {"head.weight": (10, WIDTH), "head.bias": (10,)}
    else:
        shapes |= {
            "mask_token": (1, 1, WIDTH),
            "norm.weight": (WIDTH,),
            "norm.bias": (WIDTH,),
            "lm_head.weight": (CODES, WIDTH),
        }
        shapes |= {
            "lm_head.bias": (CODES,),
            "rel_pos_bias.relative_position_bias_table": (ROWS, HEADS),
        }
        shapes |= {"cls_pt_layers.0.norm1.weight": (WIDTH,)}
        shapes |= {f"cls_pt_norm.{part}": (WIDTH,) for part in ("weight", "bias")}
        shapes |= {"cls_pt_lm_head.weight": (CODES, WIDTH), "cls_pt_lm_head.bias": (CODES,)}
    return randomised(shapes)


def reference_weights(tensors):
    """The same for the reference, which takes one table with a column per block and head."""
    w = {name: value.astype(np.float64) for name, value in tensors.items()}
    shared = w.get("rel_pos_bias.relative_position_bias_table")
    tables = [
        w.get(f"blocks.{block}.attn.relative_position_bias_table", shared) for block in range(DEPTH)
    ]
    w["relative_position_bias_table"] = np.concatenate(tables, axis=1)
    return w | {
        "token_type_embeddings.weight": np.zeros((2, WIDTH)),
        "mask_token": w.get("mask_token", np.zeros(WIDTH)),
    }


def imported(folder, tensors, form, command=None, **flags):
    """Imports a file of a training program, with its ``command``'s arguments if there are any."""
    path = folder / "beit.pth"
    content = {"model": {name: torch.tensor(value) for name, value in tensors.items()}}
    if command is not None:
        content["args"] = argparse.Namespace(**command)
    torch.save(content, path)
    options = ImportOptions(vocabulary=300, text_positions=16, **flags)
    return IMPORTS[form].run(path, options, folder / "run")


def outputs_of(run, fine_tuned):
    """A batch, and what JAX computes for it."""
    batch = verify.random_batches(run.model)["image" if fine_tuned else "image_masked"]
    return batch, verify.jax_outputs(run.model, as_tree(run.params), batch)


def largest_difference(tensors, outputs, pixels, **changes):
    """Compares JAX's states of patches, and logits if there are any, with the reference."""
    fine_tuned = "mask_token" not in tensors
    batch, found = outputs
    hidden = np.zeros((len(batch["image"]), GRID * GRID), bool)
    if not fine_tuned:
        np.put_along_axis(hidden, batch["masked_patches"], True, axis=1)
    weights = reference_weights(tensors)
    if "norm.weight" not in tensors:  # Ours starts as the identity.
        weights |= {"norm.weight": np.ones(WIDTH), "norm.bias": np.zeros(WIDTH)}
    net = reference.Net(
        **{
            "depth": DEPTH,
            "heads": HEADS,
            "grid": GRID,
            "patch": PATCH,
            "relative": True,
            "text_positions": 16,
        }
        | changes
    )
    wanted = reference.states(weights, net, image=pixels(batch["image"]), masked=hidden)
    difference = np.abs(found["image"] - wanted[:, 1:]).max()
    if fine_tuned:
        return difference
    logits = reference.linear(
        weights,
        "lm_head",
        np.take_along_axis(wanted[:, 1:], batch["masked_patches"][..., None], axis=1),
    )
    return max(difference, np.abs(found["image_logits"] - logits).max())


def in_unit_range(image):
    """BEiT's pixels."""
    return image / 127.5 - 1


def of_imagenet(image):
    """BEiT v2's pixels."""
    return (image / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])


PIXELS = {"beit": in_unit_range, "beit2": of_imagenet}


@pytest.mark.parametrize("form", PIXELS)
@pytest.mark.parametrize("fine_tuned", [False, True], ids=["pretrained", "fine-tuned"])
def test_images_compute_what_the_file_computes(tmp_path, fine_tuned, form):
    """On the pixels that the file expects, and not on the other format's.

    The image size comes from the bias table.
    """
    tensors = published(fine_tuned)
    report = imported(tmp_path, tensors, form, **({"codes": CODES} if fine_tuned else {}))
    assert "fresh    text_embed/words: BEiT has no text" in str(report)
    run = read_run(tmp_path / "run")
    assert run.model.image_size == SIDE and run.model.codes == CODES
    outputs = outputs_of(run, fine_tuned)
    for other, pixels in PIXELS.items():
        difference = largest_difference(tensors, outputs, pixels)
        assert difference < 1e-4 if other == form else difference > 1e-2, other
    assert largest_difference(tensors, outputs, PIXELS[form], tanh_gelu=True) > 1e-4


def test_a_classifier_of_cls_keeps_its_last_norm(tmp_path):
    tensors = published(fine_tuned=True, pool="cls")
    report = imported(tmp_path, tensors, "beit", codes=CODES)
    assert {"norm.weight", "norm.bias"} <= set(report.matched)
    assert set(report.dropped) == {"head.weight", "head.bias"}
    outputs = outputs_of(read_run(tmp_path / "run"), fine_tuned=True)
    assert largest_difference(tensors, outputs, in_unit_range) < 1e-4
    # Without the norm's own scale and bias, as it was before this import knew them.
    other = {name: value for name, value in tensors.items() if not name.startswith("norm.")}
    assert largest_difference(other, outputs, in_unit_range) > 1e-2


def test_the_separate_head_of_cls_is_dropped_by_name(tmp_path):
    """BEiT v2's pretraining with ``shared_lm_head`` off; it does not touch what is read."""
    tensors = published(fine_tuned=False)
    of_cls = {name for name in tensors if name.startswith("cls_pt_")}
    report = imported(tmp_path, tensors, "beit2")
    assert len(of_cls) == 5 and set(report.dropped) == of_cls
    assert set(report.matched) == tensors.keys() - of_cls


@pytest.mark.parametrize(("form", "other"), [("beit", "beit2"), ("beit2", "beit")])
def test_the_commands_arguments_tell_the_pixels(tmp_path, form, other):
    """BEiT's recipe for ImageNet-1k normalises by ImageNet's mean, the other one does not."""
    tensors = published(fine_tuned=False)
    said = {"imagenet_default_mean_and_std": form == "beit"}
    with pytest.raises(UsageError, match=f"normalised .*Import it with --format={other}$"):
        imported(tmp_path, tensors, form, said)
    imported(tmp_path, tensors, other, said)
    outputs = outputs_of(read_run(tmp_path / "run"), fine_tuned=False)
    assert largest_difference(tensors, outputs, PIXELS[other]) < 1e-4


BIASES = "rel_pos_bias.relative_position_bias_table"


@pytest.mark.parametrize(
    ("changed", "flags", "said"),
    [
        ({}, {"image_size": 40}, "--image_size=40, but the file has image_size=32"),
        ({}, {"image_size": 33}, "--image_size=33"),
        ({}, {"codes": 41}, "--codes=41, but the file has codes=40"),
        ({BIASES: None}, {}, f"not a BEiT checkpoint with relative positions: {BIASES} missing"),
        ({"cls_token": None}, {}, "cls_token missing"),
        ({BIASES: (53, HEADS)}, {}, "has 53 rows"),
        ({BIASES: (7, HEADS)}, {}, "has 7 rows"),
        ({BIASES: (ROWS, 3)}, {}, "3 heads do not divide"),
        ({"lm_head.bias": None}, {}, "missing tensors: lm_head.bias"),
        ({"pos_embed": (1, GRID**2 + 1, WIDTH)}, {}, "no rule uses: pos_embed"),
    ],
    ids=str,
)
def test_files_that_do_not_fit_are_refused(tmp_path, changed, flags, said):
    shapes = {name: value.shape for name, value in published(False).items()} | changed
    shapes = {name: shape for name, shape in shapes.items() if shape is not None}
    with pytest.raises(UsageError, match=said):
        IMPORTS["beit"].read(
            tensor_file(shapes), tmp_path / "beit.pth", ImportOptions(**flags), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()
