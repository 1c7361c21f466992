"""From another program's file to the folder of a run: a warm start for pretraining, or a visual tokenizer to be used."""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import vlbeit_jax
from vlbeit_jax.config import Config, ModelConfig, RunConfig, VisualTokenizerConfig
from vlbeit_jax.convert.rules import Report, Shape, Table, Tensors, imported
from vlbeit_jax.convert.source import CODEBOOK, as_tree, model_shapes, visual_shapes
from vlbeit_jax.folders import published
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.training.checkpoint import Checkpointer, leaf_name
from vlbeit_jax.training.run_folder import CHECKPOINTS, IMPORTED_STEP, write_config
from vlbeit_jax.types import Stream

REPORT_FILE = "import.txt"
Read = Callable[[Tensors, ModelConfig, Mapping[str, Shape]], tuple[Table, Tensors]]


def import_model(file: pathlib.Path, tensors: Tensors, read: Read, config: ModelConfig, out: pathlib.Path, seed: int = 0) -> Report:
    """Writes a run whose parameters come from the file, and for the rest from a fresh start.

    Args:
      file: of another program, for the description.
      tensors: what it holds.
      read: gives a format's table for them, and the tensors with what has to be folded.
      config: the model, as the file's shapes have it.
      out: the folder to make.
      seed: of what the file does not hold.

    Raises:
      UsageError: the file does not fit, or ``out`` exists.
    """
    shapes = model_shapes(config)
    arrays, report = imported(*read(tensors, config, shapes), shapes)
    fresh = jax.jit(lambda key: nn.unbox(VLBEiT(config).init(key, method="init_all")["params"]))(jax.random.key(seed))
    whole = {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(fresh)} | _checked(arrays, shapes)
    with _folder(out, file, report, {"params": as_tree(whole)}) as folder:
        write_config(folder, Config(model=config, run=RunConfig(steps=IMPORTED_STEP)))
    return report


def import_visual_tokenizer(file: pathlib.Path, tensors: Tensors, table: Table, config: VisualTokenizerConfig, out: pathlib.Path) -> Report:
    """Writes the folder of a finished VQ-KD run: ``data.visual_tokenizer`` may name it."""
    shapes = visual_shapes(config)
    arrays, report = imported(table, tensors, shapes)
    params = _checked(arrays, shapes)
    extra = {Stream.IMAGE: {"codebook": params.pop(CODEBOOK), "use": np.ones(config.codes, np.float32)}}
    with _folder(out, file, report, {"params": as_tree(params), "extra": extra}) as folder:
        write_config(folder, Config(task="vqkd", visual_tokenizer=config, run=RunConfig(steps=IMPORTED_STEP, schedule="image")))
    return report


def import_network(
    file: pathlib.Path, tensors: Tensors, table: Table, params: Any, describe: Callable[[pathlib.Path], None], out: pathlib.Path
) -> Report:
    """Writes the folder of a network that is used as it is: a teacher, or DALL-E's encoder as a visual tokenizer.

    Args:
      file: of another program, for the description.
      tensors: what it holds.
      table: the format's.
      params: shapes of the network's parameters.
      describe: leaves in a folder what ``params`` do not say.
      out: the folder to make.

    Raises:
      UsageError: the file does not fit, or ``out`` exists.
    """
    shapes = {leaf_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    arrays, report = imported(table, tensors, shapes)
    with _folder(out, file, report, {"params": as_tree(_checked(arrays, shapes))}) as folder:
        describe(folder)
    return report


def _checked(arrays: Iterator[tuple[str, np.ndarray]], shapes: Mapping[str, Shape]) -> dict[str, np.ndarray]:
    found = {}
    for name, value in arrays:
        assert value.shape == shapes[name], (name, value.shape, shapes[name])
        found[name] = np.ascontiguousarray(value, np.float32)
    return found


@contextmanager
def _folder(out: pathlib.Path, file: pathlib.Path, report: Report, trees: dict[str, Any]) -> Iterator[pathlib.Path]:
    with published(out) as folder:
        yield folder
        checkpointer = Checkpointer(folder / CHECKPOINTS)
        versions = {"vlbeit_jax": vlbeit_jax.__version__}
        description = {"step": IMPORTED_STEP, "trained_on": [], "imported_from": file.name, "versions": versions}
        checkpointer.save(IMPORTED_STEP, jax.tree.map(jnp.asarray, trees), description)
        checkpointer.close()
        (folder / REPORT_FILE).write_text(f"from {file.name}\n{report}\n")
