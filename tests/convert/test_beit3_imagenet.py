"""A published classifier becomes a fine-tuned run with the logits of its own network."""

import dataclasses
import json

import numpy as np
import pytest

from tests.convert.conftest import needs_torch
from tests.convert.named import tensor_file
from tests.convert.test_beit3_heads import (
    ANSWERS,
    HEADS,
    NET,
    batch,
    classification_tensors,
)
from tests.references import beit3 as reference
from vlbeit_jax.convert.files import write_manifest
from vlbeit_jax.convert.finetuned import jax_outputs, read_finetuned
from vlbeit_jax.convert.formats import IMPORTS, torch_finetuned
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.errors import UsageError

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
OPTIONS = ImportOptions(heads=HEADS)


def imported(folder, tensors, **options):
    file = tensor_file({name: value.shape for name, value in tensors.items()}, tensors)
    path = folder / "beit3_base_in1k.pth"
    options = dataclasses.replace(OPTIONS, **options)
    report = IMPORTS["beit3-imagenet"].read(file, path, options, folder / "run")
    return report, read_finetuned(folder / "run", "raw")


def test_logits_are_those_of_the_published_network(tmp_path):
    tensors = classification_tensors()
    report, source = imported(tmp_path, tensors)
    assert not report.fresh and all("text" in reason for reason in report.dropped.values())
    image, *_ = batch()
    found = jax_outputs(source, {"image": image})["logits"]
    wide = {name: value.astype(np.float64) for name, value in tensors.items()}
    expected = reference.class_logits(wide, NET, (image / 255 - MEAN) / DEVIATION)
    assert np.abs(expected).max() > 1 and np.abs(found - expected).max() < 2e-5
    # BEiT-3's other models see pixels in [-1, 1].
    other = reference.class_logits(wide, NET, image / 127.5 - 1)
    assert np.abs(found - other).max() > 1e-2
    assert source.opened.task.class_names == tuple(map(str, range(ANSWERS)))


def test_classes_have_the_names_of_the_file(tmp_path):
    names = [f"class {number}" for number in range(ANSWERS)]
    (tmp_path / "names.json").write_text(json.dumps(names))
    tensors, classes = classification_tensors(), str(tmp_path / "names.json")
    _, source = imported(tmp_path, tensors, classes=classes)
    assert source.opened.task.class_names == tuple(names)
    (tmp_path / "names.json").write_text(json.dumps(names[1:]))
    with pytest.raises(UsageError, match=f"holds {ANSWERS - 1} names, but the file has {ANSWERS}"):
        imported(tmp_path, tensors, classes=classes)


@needs_torch
def test_it_is_exported_as_any_fine_tuned_run(tmp_path):
    _, source = imported(tmp_path, classification_tensors())
    out = tmp_path / "out"
    out.mkdir()
    torch_finetuned.write(source, out)
    write_manifest(out)
    assert torch_finetuned.check(source, out).summary()["max_abs"] < 1e-5


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("fc_norm.weight", None, "not a BEiT-3 classifier of images: fc_norm.weight missing"),
        ("head.bias", np.zeros(3, np.float32), r"head.bias is \[3\], expected \[31\]"),
        ("pooler.dense.bias", np.zeros(3, np.float32), "no rule uses: pooler.dense.bias"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, name, value, said):
    tensors = classification_tensors() | ({} if value is None else {name: value})
    if value is None:
        del tensors[name]
    with pytest.raises(UsageError, match=said):
        imported(tmp_path, tensors)
    assert not (tmp_path / "run").exists()
