"""Reads fine-tuned runs for export, and computes what their exports are compared with."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.examples import EXAMPLES_FILE, FIGURES_FILE, without_folders
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.heads import HEADS
from vlbeit_jax.convert.heads.base import Head
from vlbeit_jax.convert.rules import Arrays
from vlbeit_jax.convert.source import as_tree
from vlbeit_jax.data.records import ConcatRecords
from vlbeit_jax.data.source import open_sets_once
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.runtime.finetuned import FineTunedRun
from vlbeit_jax.tasks.base import FineTuned
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.training.mesh import make_mesh
from vlbeit_jax.training.param_names import leaf_name


@dataclasses.dataclass(frozen=True)
class FineTunedModel:
    """A fine-tuned run that is being exported.

    Attributes:
      run: the run, opened as evaluation opens it, with raw or averaged parameters.
      head: the head of its network.
      params: the model's parameters by name.
    """

    run: FineTunedRun
    head: Head
    params: Arrays

    @property
    def opened(self) -> Any:
        """The open task."""
        return self.run.opened

    @property
    def network(self) -> nn.Module:
        """Backbone and head."""
        return self.opened.task.network

    @property
    def model(self) -> ModelConfig:
        """The backbone's part of the configuration."""
        return self.opened.task.model


def read_finetuned(folder: pathlib.Path, weights: str, step: int = 0) -> FineTunedModel:
    """Reads a checkpoint of a fine-tuned run.

    Args:
      folder: folder of the run.
      weights: "raw", or "ema" for averaged parameters, as in evaluation.
      step: to read, and no other; 0: the newest one that is not damaged.

    Raises:
      Damaged: this step cannot be read, or none can.
      UsageError: the folder holds no fine-tuned run, the run has no checkpoint, it has no averaged
        parameters, or its head has no entry in ``HEADS``.
    """
    config = read_config(folder)
    opened = config.task.open(folder)
    network: Any = getattr(opened.task, "network", None)
    head = HEADS.get(type(network))
    if not isinstance(opened, FineTuned):
        raise UsageError(
            f"--from={folder} holds a run of task {config.task.kind!r}; a pretraining run or a "
            "fine-tuned run is needed"
        )
    if head is None:
        raise UsageError(
            f"--from={folder} holds a run of task {config.task.kind!r}, whose head no format "
            "knows; to export it, add a file to vlbeit_jax/convert/heads"
        )
    run = FineTunedRun.open(folder, config, opened, weights, step)
    leaves = jax.tree_util.tree_leaves_with_path(run.params)
    return FineTunedModel(run, head, {leaf_name(path): np.asarray(leaf) for path, leaf in leaves})


def write_evaluation(
    source: FineTunedModel, places: Sequence[str], split: str, folder: pathlib.Path
) -> None:
    """Evaluates a run, and writes the figures and the examples that they were computed from.

    Args:
      source: the run.
      places: folders of prepared sets.
      split: the split to evaluate; if empty, test if all sets have it, otherwise validation.
      folder: gets ``evaluation.json`` and ``evaluation.safetensors``.

    Raises:
      UsageError: see ``FineTunedRun.evaluate``.
    """
    results = source.run.evaluate(places, split, make_mesh(MeshConfig()))
    text = json.dumps(without_folders(results), indent=1, ensure_ascii=False)
    (folder / FIGURES_FILE).write_text(text + "\n", encoding="utf-8")
    sets = open_sets_once(places, source.opened.kind)
    records = ConcatRecords([each.records(results["protocol"]["split"]) for each in sets])
    arrays = source.head.examples(source.opened, records, results)
    write_safetensors(folder / EXAMPLES_FILE, arrays, {"format": "pt"})


def random_inputs(model: ModelConfig) -> dict[str, np.ndarray]:
    """Returns random inputs for every network: images, second images and texts."""
    pair = verify.random_batches(model)["pair"]
    return {"image": pair["image"], "second_image": pair["image"][::-1], "text": pair["text"]}


def jax_outputs(source: FineTunedModel, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the network's outputs in float32, under the names of ``Head.outputs``.

    Args:
      source: the model.
      batch: pixels Uint8[B, side, side, 3] as "image" and "second_image", and word pieces Int[B, T]
        as "text".
    """
    config = dataclasses.replace(source.model, matmul="float32")
    network, params = source.network.clone(config=config), as_tree(source.params)
    outputs = {}
    for name, output in source.head.outputs(source.network).items():
        inputs = Inputs(**{key: jnp.asarray(batch[key]) for key in output.inputs})

        def forward(params: Any, inputs: Inputs, method: str = output.method) -> Any:
            return network.apply({"params": params}, inputs, method=method)

        with jax.default_matmul_precision("highest"):
            outputs[name] = np.asarray(jax.jit(forward)(params, inputs))
    return outputs
