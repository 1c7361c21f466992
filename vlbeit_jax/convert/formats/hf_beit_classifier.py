"""Exports a fine-tuned classifier of images as Hugging Face's ``BeitForImageClassification``.

With mean pooling, transformers normalises the mean of the patches' states. Without it, transformers
normalises the state of CLS. Our head does the same, so its norm becomes the last norm of the
exported model.
"""

import json
import pathlib
from typing import Any

import numpy as np

from vlbeit_jax.convert import verify
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.finetuned import FineTunedModel, jax_outputs
from vlbeit_jax.convert.formats.base import Export
from vlbeit_jax.convert.formats.hf_beit import (
    MASK_TOKEN,
    NOTES,
    TYPE,
    beit_config,
    fold_type,
    open_model,
    pixel_values,
    squashing,
    trunk,
)
from vlbeit_jax.convert.rules import Table, export
from vlbeit_jax.convert.tables import linear, norm, refuse_beit3
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.classifier import Classifier
from vlbeit_jax.types import Modality

MEAN = "mean"
NORM = {MEAN: "beit.pooler.layernorm", "cls": "beit.layernorm"}  # By the kind of pooling.


def require(source: FineTunedModel) -> None:
    """Raises a ``UsageError`` unless the run is a classifier of images that BEiT can compute."""
    network = source.network
    if not isinstance(network, Classifier) or network.modality is not Modality.VISION:
        raise UsageError(
            "--to=hf-beit takes pretraining runs and classifiers of images, but --from="
            f"{source.run.folder} holds a run of task {source.run.config.task.kind!r}; export it "
            "with --to=torch"
        )
    refuse_beit3(source.model, "hf-beit", "--to=torch")


def table(source: FineTunedModel) -> Table:
    """Returns rules for every parameter but the modality type and the mask token."""
    rules = [each for each in trunk(source.model, "beit.") if MASK_TOKEN not in each.jax]
    rules += norm("head/norm", NORM[source.opened.task.pool]) + linear("head/out", "classifier")
    left_out = {TYPE: "folded into the embeddings", MASK_TOKEN: "of pretraining"}
    return Table(rules, left_out)


def write(source: FineTunedModel, folder: pathlib.Path) -> None:
    """Writes the weights, config.json with the names of the classes, and the image processor."""
    params = fold_type(source.model, source.params)
    write_safetensors(folder / "model.safetensors", export(table(source), params), NOTES)
    contents = {"config.json": _config(source), "preprocessor_config.json": _preprocessor(source)}
    for name, content in contents.items():
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _config(source: FineTunedModel) -> dict[str, Any]:
    task = source.opened.task
    return beit_config(source.model) | {
        "architectures": ["BeitForImageClassification"],
        "use_mask_token": False,
        "use_mean_pooling": task.pool == MEAN,
        "id2label": {str(number): name for number, name in enumerate(task.class_names)},
        "label2id": {name: number for number, name in enumerate(task.class_names)},
    }


def _preprocessor(source: FineTunedModel) -> dict[str, Any]:
    """Returns the image processor that makes the view of our evaluation.

    The view is the whole image as a square, or the centre of the image.
    """
    task, side = source.opened.task, source.model.image_size
    if task.image.view == "squash":
        return squashing(side)
    # BEiT's processor would squash the image before it cuts out the centre; CLIP's does not.
    shared = {key: value for key, value in squashing(side).items() if key != "do_reduce_labels"}
    return shared | {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": round(side / task.image.crop_share)},
        "do_center_crop": True,
        "do_convert_rgb": True,
    }


def check(source: FineTunedModel, folder: pathlib.Path) -> verify.Differences:
    """Compares the logits of random images with JAX's.

    Raises:
      ValueError: transformers reports a missing or unexpected name.
    """
    import torch
    import transformers

    model = open_model(folder, "BeitForImageClassification")
    batch = {"image": verify.random_images(source.model.image_size)}
    with torch.no_grad():
        actual: np.ndarray = model(pixel_values(batch["image"])).logits.numpy()
    differences = verify.Differences(f"transformers {transformers.__version__}")
    differences.add("logits", actual, jax_outputs(source, batch)["logits"])
    return differences


EXPORT = Export(
    takes="classifiers of images",
    exact="logits of images, with both ways of pooling and both position schemes; names of classes",
    needs="transformers (4.57 or 5) to verify it",
    drops="nothing: the modality type is folded into positions or embeddings",
    peers=("torch", "transformers"),
    require=require,
    write=write,
    check=check,
    flags=("verify", "weights"),
)
