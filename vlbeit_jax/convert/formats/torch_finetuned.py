"""Exports a fine-tuned model with its head to PyTorch, and the files that define and evaluate it.

These files are ``vlbeit_torch.py``, ``vlbeit_captions.py``, ``vlbeit_segments.py``,
``vlbeit_finetuned.py`` and ``evaluate_finetuned.py`` in ``convert/standalone``.
"""

import json
import pathlib
import shutil
from collections.abc import Collection
from types import ModuleType
from typing import Any

import flax.linen as nn
import numpy as np

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.card import of_finetuned, write_card
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.finetuned import FineTunedModel, jax_outputs, random_inputs
from vlbeit_jax.convert.formats.base import Export
from vlbeit_jax.convert.formats.torch_module import (
    SPECIALS,
    STANDALONE,
    WEIGHTS_FILE,
    copy_text_tokenizer,
    load_arrays,
    model_config,
)
from vlbeit_jax.convert.formats.torch_tables import model_table
from vlbeit_jax.convert.heads import HEADS
from vlbeit_jax.convert.rules import Table, export
from vlbeit_jax.convert.tables import FUSED
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER
from vlbeit_jax.types import Modality
from vlbeit_jax.version import __version__

# Files of ``convert/standalone`` by their names in the export.
FILES = {
    "vlbeit_torch.py": "vlbeit_torch.py",
    "vlbeit_captions.py": "vlbeit_captions.py",
    "vlbeit_segments.py": "vlbeit_segments.py",
    "vlbeit_finetuned.py": "vlbeit_finetuned.py",
    "evaluate.py": "evaluate_finetuned.py",
}
CODE = """
import sys

sys.path.insert(0, ".")  # The folder with this file.
from vlbeit_finetuned import load, normalise

model = load(".")
{calls}
"""
INPUTS = {
    "image": "image=normalise(pixels)",
    "second_image": "second_image=normalise(second_pixels)",
    "text": "text=pieces",
}


def table(model: ModelConfig, network: nn.Module, names: Collection[str]) -> Table:
    """Returns the table of the network's parameters: those of its backbone and those of its head.

    Args:
      model: configuration of the backbone.
      network: backbone and head.
      names: names of the network's parameters; it may lack some of the backbone's.
    """
    backbone = [each for each in model_table(model).rules if {*each.jax} <= {*names}]
    return Table(backbone + HEADS[type(network)].rules(network))


def parts(depth: int, names: Collection[str]) -> dict[str, Any]:
    """Returns the ``modalities`` of a network, and the ``experts`` of each of its blocks.

    A network has only the modalities and experts that its inputs pass through.

    Args:
      depth: number of blocks.
      names: names of the network's parameters.
    """
    embed = {Modality.VISION: "vision_embed", Modality.LANGUAGE: "text_embed"}
    experts = [*map(str, Modality), FUSED]
    return {
        "modalities": [str(each) for each in Modality if f"{embed[each]}/type" in names],
        "experts": [
            [name for name in experts if f"encoder/block_{block}/{name}/up/kernel" in names]
            for block in range(depth)
        ],
    }


def write(source: FineTunedModel, folder: pathlib.Path) -> None:
    """Writes weights, configuration, text tokenizer, ``convert/standalone`` and a model card."""
    tensors = export(table(source.model, source.network, source.params), source.params)
    write_safetensors(folder / WEIGHTS_FILE, tensors, {"format": "pt"})
    text = json.dumps(config_of(source), indent=1, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    for name, file in FILES.items():
        shutil.copy(STANDALONE / file, folder / name)
    for name, path in source.head.files.items():
        shutil.copy(path, folder / name)
    copy_text_tokenizer(text_tokenizer_of(source), folder)
    calls = [
        f"model.{output.method}({', '.join(INPUTS[name] for name in output.inputs)})".replace(
            ".__call__", ""
        )
        for output in source.head.outputs(source.network).values()
    ]
    write_card(of_finetuned(source), CODE.format(calls="\n".join(calls)), folder)


def as_module(source: FineTunedModel) -> tuple[ModuleType, Any]:
    """Returns vlbeit_finetuned.py, and the run's network as a PyTorch module."""
    with verify.importable(STANDALONE):
        module = verify.module_of(STANDALONE / "vlbeit_finetuned.py")
    config = config_of(source)
    model = module.NETWORKS[config["network"]["kind"]](config["model"], config["network"])
    load_arrays(model, export(table(source.model, source.network, source.params), source.params))
    return module, model


def text_tokenizer_of(source: FineTunedModel) -> pathlib.Path | None:
    """Returns the folder of a run's text tokenizer; None if its task has no texts."""
    place = source.run.folder / TEXT_TOKENIZER
    return place if place.is_dir() else None


def config_of(source: FineTunedModel) -> dict[str, Any]:
    """Returns the content of config.json."""
    run = source.run
    return {
        "format": 1,
        "written_by": f"vlbeit_jax {__version__}",
        "task": run.config.task.kind,
        "step": run.step,
        "weights": run.weights,
        "model": model_config(source.model),
        "network": {
            "kind": source.head.kind,
            **parts(source.model.depth, source.params),
            **source.head.describe(source.opened),
        },
        "specials": None if text_tokenizer_of(source) is None else SPECIALS,
    }


def check(source: FineTunedModel, folder: pathlib.Path) -> verify.Differences:
    """Compares every output of the exported module with JAX's."""
    import torch

    with verify.importable(folder):
        module = verify.module_of(folder / "vlbeit_finetuned.py")
    model = module.load(folder)
    batch = random_inputs(source.model)
    inputs = {"text": torch.from_numpy(batch["text"]).long()}
    for name in ("image", "second_image"):
        pixels = torch.from_numpy(np.ascontiguousarray(batch[name]))
        inputs[name] = module.normalise(pixels.permute(0, 3, 1, 2))
    differences = verify.Differences(
        f"vlbeit_finetuned.py with PyTorch {torch.__version__}", source.model.pad
    )
    expected = jax_outputs(source, batch)
    for name, output in source.head.outputs(source.network).items():
        with torch.inference_mode():
            method = getattr(model, output.method)
            actual: np.ndarray = method(**{key: inputs[key] for key in output.inputs}).numpy()
        actual = np.moveaxis(actual, 1, -1) if output.is_map else actual
        differences.add(name, actual, expected[name])
    return differences


EXPORT = Export(
    takes="every fine-tuned run",
    exact="all of it: backbone, head, list of classes or answers; metrics with --data",
    needs="torch and safetensors to load it, nothing else",
    drops="nothing",
    peers=("torch",),
    require=None,
    write=write,
    check=check,
    flags=("verify", "weights", "data", "split"),
)
