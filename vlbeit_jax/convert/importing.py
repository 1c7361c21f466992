"""Writes the folder of a run from another program's file.

A model is a start for pretraining; a visual tokenizer or a teacher is used as it is.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.networks import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.config.schema import FOLLOWS
from vlbeit_jax.config.streams import ImageStreamConfig, PairStreamConfig, TextStreamConfig
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import Report, Shape, Table, load
from vlbeit_jax.convert.source import CODEBOOK, as_tree, model_shapes, tree_shapes, visual_shapes
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import published
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.runtime.run_folder import write_config
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.complete import completed
from vlbeit_jax.tasks.open_vqkd import IMAGE
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.tasks.vqkd import VQKD
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.saved_run import CHECKPOINTS, IMPORTED_STEP
from vlbeit_jax.version import __version__

REPORT_FILE = "import.txt"


def no_assets(folder: pathlib.Path) -> None:
    """Writes nothing."""


def import_model(
    file: pathlib.Path,
    content: TensorFile,
    table: Table,
    config: ModelConfig,
    out: pathlib.Path,
    save_assets: Callable[[pathlib.Path], None] = no_assets,
) -> Report:
    """Writes a run with the file's parameters; those that the file lacks are initialised.

    Args:
      file: of the other program, named in the checkpoint's description.
      content: its tensors, and notes for the report.
      table: of the format.
      config: of the model.
      out: the folder to make.
      save_assets: writes what belongs to the run besides, such as a tokenizer, into its folder.

    Raises:
      UsageError: the file does not fit, or ``out`` exists.
    """
    params, report = _load(table, content, model_shapes(config))
    params |= _initial(config, report.fresh)
    with _folder(out, file, report) as folder:
        write_config(folder, _described(config))
        save_assets(folder)
        _save(folder, file, {"params": as_tree(params)})
    return report


def _described(model: ModelConfig) -> Config:
    """Returns the configuration of an imported model.

    No file tells how many patches were masked, and a run that starts from the import takes its
    masks, so these follow from the network's own grid.
    """
    masks: dict[str, Any] = {"num_masked_patches": FOLLOWS, "mask_block": 0}
    task = Pretrain(
        model=model,
        image=ImageStreamConfig(**masks),
        text=TextStreamConfig(text_length=0),
        pair=PairStreamConfig(**masks, text_length=0, masked_text=0.5),
    )
    return completed(Config(task=task, run=RunConfig(steps=IMPORTED_STEP)))


def import_visual_tokenizer(
    file: pathlib.Path,
    content: TensorFile,
    table: Table,
    config: VisualTokenizerConfig,
    out: pathlib.Path,
) -> Report:
    """Writes the folder of a finished VQ-KD run, for ``task.visual_tokenizer``."""
    params, report = _load(table, content, visual_shapes(config))
    use = np.ones(config.codes, np.float32)
    model_state = {IMAGE: {"codebook": params.pop(CODEBOOK), "use": use}}
    run = RunConfig(steps=IMPORTED_STEP)
    with _folder(out, file, report) as folder:
        write_config(folder, Config(task=VQKD(model=config), run=run))
        _save(folder, file, {"params": as_tree(params), "model_state": model_state})
    return report


def import_network(
    file: pathlib.Path,
    content: TensorFile,
    table: Table,
    params: Any,
    describe: Callable[[pathlib.Path], None],
    out: pathlib.Path,
) -> Report:
    """Writes the folder of a network that is used as it is: a teacher, or DALL-E's encoder.

    Args:
      file: of the other program, named in the checkpoint's description.
      content: its tensors, and notes for the report.
      table: of the format.
      params: a tree with the shapes of the network's parameters.
      describe: writes into a folder what the parameters do not tell.
      out: the folder to make.

    Raises:
      UsageError: the file does not fit, or ``out`` exists.
    """
    arrays, report = _load(table, content, tree_shapes(params))
    with _folder(out, file, report) as folder:
        describe(folder)
        _save(folder, file, {"params": as_tree(arrays)})
    return report


def _load(
    table: Table, content: TensorFile, shapes: Mapping[str, Shape]
) -> tuple[dict[str, np.ndarray], Report]:
    """Converts a file's tensors to our parameters; its notes become the report's."""
    params, report = load(table, content.tensors, shapes)
    wrong = [name for name, value in params.items() if not np.isfinite(value).all()]
    if wrong:
        raise UsageError(
            f"{', '.join(wrong)}: some values in the file are not finite. The file is damaged, or "
            "of a run that diverged"
        )
    return params, dataclasses.replace(report, notes=content.notes)


def _initial(config: ModelConfig, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns a new model's parameters of these names; XLA computes no others."""
    wanted = frozenset(names)

    def init(key: jax.Array) -> dict[str, jax.Array]:
        params = nn.unbox(VLBEiT(config).init(key, method="init_all")["params"])
        leaves = jax.tree_util.tree_leaves_with_path(params)
        return {name: leaf for path, leaf in leaves if (name := leaf_name(path)) in wanted}

    values = jax.jit(init)(jax.random.key(0))
    return {name: np.asarray(value) for name, value in values.items()}


def _save(folder: pathlib.Path, file: pathlib.Path, trees: dict[str, Any]) -> None:
    description = {
        "step": IMPORTED_STEP,
        "trained_on": [],
        "imported_from": file.name,
        "versions": {"vlbeit_jax": __version__},
    }
    checkpointer = Checkpointer(folder / CHECKPOINTS)
    # Not ascontiguousarray, which gives a scalar an axis.
    saved = jax.tree.map(lambda value: np.asarray(value, order="C"), trees)
    checkpointer.save(IMPORTED_STEP, saved, description)
    checkpointer.close()


@contextmanager
def _folder(out: pathlib.Path, file: pathlib.Path, report: Report) -> Iterator[pathlib.Path]:
    """Makes ``out``, which appears when all of it is written; leaves the report in it."""
    with published(out) as folder:
        yield folder
        (folder / REPORT_FILE).write_text(f"from {file.name}\n{report}\n")
