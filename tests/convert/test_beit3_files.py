"""BEiT-3's fine-tuned files become models with the states of their own networks."""

import numpy as np
import pytest

from tests.convert.named import tensor_file
from tests.convert.test_beit3_heads import (
    NET,
    batch,
    classification_tensors,
    reasoning_tensors,
    vqa_tensors,
)
from tests.references import beit3 as reference
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.formats import IMPORTS
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.convert.source import as_tree, read_run
from vlbeit_jax.errors import UsageError

NORM = ("scale", "bias")
LAST = "beit3.encoder.layer_norm"
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def usual(image):
    return image / 127.5 - 1


def of_imagenet(image):
    return (image / 255 - MEAN) / DEVIATION


def normalised(states):
    """What a norm at its initial values makes of states."""
    states = states - states.mean(-1, keepdims=True)
    return states / np.sqrt((states**2).mean(-1, keepdims=True) + reference.EPS)


KINDS = {
    "vqa": (vqa_tensors, False, usual, of_imagenet),
    "imagenet": (classification_tensors, False, of_imagenet, usual),
    "nlvr2": (reasoning_tensors, True, usual, of_imagenet),
}


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_of_the_published_network(tmp_path, kind):
    """With the pixels of its own task, and not with those of the others."""
    make, final_norm, pixels, other_pixels = KINDS[kind]
    tensors = make()
    file = tensor_file({name: value.shape for name, value in tensors.items()}, tensors)
    path, out = tmp_path / "beit3.pth", tmp_path / "run"
    report = IMPORTS["beit3"].read(file, path, ImportOptions(), out)
    heads = {name for name in tensors if not name.startswith("beit3.")}
    assert set(report.dropped) == heads
    norms = {f"encoder/{part}_norm/{value}" for part in ("vision", "language") for value in NORM}
    assert (norms <= set(report.fresh)) == (not final_norm)
    assert len(report.notes) == (kind == "imagenet")
    run, (image, text, valid) = read_run(out), batch()
    found = verify.jax_outputs(run.model, as_tree(run.params), {"image": image, "text": text})
    wide = {name: value.astype(np.float64) for name, value in tensors.items()}

    def differences(pixels):
        states = reference.states(wide, NET, pixels(image), text, valid, final_norm)
        wanted = verify.split_states(
            states if final_norm else normalised(states), ("image", "text"), run.model.patches
        )
        real = valid[:, 1:]
        return max(
            np.abs(found["image"] - wanted["image"]).max(),
            np.abs(found["text"] - wanted["text"])[real].max(),
        )

    assert differences(pixels) < 1e-4
    assert differences(other_pixels) > 1e-2


def test_a_part_of_the_last_norm_is_not_none(tmp_path):
    """A file that has lost some of it is damaged, and not one without it."""
    tensors = reasoning_tensors()
    del tensors[f"{LAST}.B.bias"]
    file = tensor_file({name: value.shape for name, value in tensors.items()}, tensors)
    with pytest.raises(UsageError, match=f"missing tensors: {LAST}.B.bias"):
        IMPORTS["beit3"].read(file, tmp_path / "x.pth", ImportOptions(), tmp_path / "run")
