"""From another program's file to the folder of a run: a warm start for pretraining, or a visual tokenizer to be used."""

import itertools
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import numpy as np

import vlbeit_jax
from vlbeit_jax.config import Config, ModelConfig, RunConfig, VisualTokenizerConfig
from vlbeit_jax.convert.files import pieces
from vlbeit_jax.convert.rules import Report, Shape, Table, Tensors, imported
from vlbeit_jax.convert.source import CODEBOOK, as_tree, model_shapes, visual_shapes
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import published
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.runtime.run_folder import write_config
from vlbeit_jax.training.checkpoint import Checkpointer, leaf_name
from vlbeit_jax.training.saved_run import CHECKPOINTS, IMPORTED_STEP
from vlbeit_jax.types import Stream

REPORT_FILE = "import.txt"
Arrays = Iterator[tuple[str, np.ndarray]]
Read = Callable[[Tensors, ModelConfig, Mapping[str, Shape]], tuple[Table, Tensors]]


def import_model(
    file: pathlib.Path, tensors: Tensors, read: Read, config: ModelConfig, out: pathlib.Path
) -> Report:
    """Writes a run whose parameters come from the file, and for the rest from a fresh start.

    Args:
      file: of another program, for the description.
      tensors: what it holds.
      read: gives a format's table for them, and the tensors with what has to be folded.
      config: the model, as the file's shapes have it.
      out: the folder to make.

    Raises:
      UsageError: the file does not fit, or ``out`` exists.
    """
    shapes = model_shapes(config)
    arrays, report = imported(*read(tensors, config, shapes), shapes)
    with _folder(out, file, report) as folder:
        write_config(folder, Config(model=config, run=RunConfig(steps=IMPORTED_STEP)))
        with _staged(folder, shapes) as stage:
            params = stage(arrays) | stage(_fresh(config, report.fresh))
            _save(folder, file, {"params": as_tree(params)})
    return report


def import_visual_tokenizer(
    file: pathlib.Path,
    tensors: Tensors,
    table: Table,
    config: VisualTokenizerConfig,
    out: pathlib.Path,
) -> Report:
    """Writes the folder of a finished VQ-KD run: ``data.visual_tokenizer`` may name it."""
    shapes = visual_shapes(config)
    arrays, report = imported(table, tensors, shapes)
    with _folder(out, file, report) as folder:
        write_config(
            folder,
            Config(
                task="vqkd",
                visual_tokenizer=config,
                run=RunConfig(steps=IMPORTED_STEP, schedule="image"),
            ),
        )
        with _staged(folder, shapes) as stage:
            params = stage(arrays)
            extra = {
                Stream.IMAGE: {
                    "codebook": params.pop(CODEBOOK),
                    "use": np.ones(config.codes, np.float32),
                }
            }
            _save(folder, file, {"params": as_tree(params), "extra": extra})
    return report


def import_network(
    file: pathlib.Path,
    tensors: Tensors,
    table: Table,
    params: Any,
    describe: Callable[[pathlib.Path], None],
    out: pathlib.Path,
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
    shapes = {
        leaf_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    arrays, report = imported(table, tensors, shapes)
    with _folder(out, file, report) as folder:
        describe(folder)
        with _staged(folder, shapes) as stage:
            _save(folder, file, {"params": as_tree(stage(arrays))})
    return report


def _fresh(config: ModelConfig, names: Iterable[str]) -> Arrays:
    """A new model's parameters of these names, one part of the model at a time; what only others need is not computed."""

    def made(key: jax.Array, wanted: frozenset[str]) -> dict[str, jax.Array]:
        params = nn.unbox(VLBEiT(config).init(key, method="init_all")["params"])
        return {
            name: leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            if (name := leaf_name(path)) in wanted
        }

    make = jax.jit(made, static_argnums=1)
    for _, part in itertools.groupby(sorted(names), lambda name: name.split("/")[:2]):
        yield from (
            (name, np.asarray(leaf))
            for name, leaf in make(jax.random.key(0), frozenset(part)).items()
        )


class _Staged(np.memmap):
    """An array in a file that nobody changes: Orbax, which copies arrays before it saves them, may keep to this one."""

    def __deepcopy__(self, memo: dict) -> "_Staged":
        return self


@contextmanager
def _staged(
    folder: pathlib.Path, shapes: Mapping[str, Shape]
) -> Iterator[Callable[[Arrays], dict[str, np.ndarray]]]:
    """Puts arrays, one at a time, into files under ``folder`` and gives them back from there; the files are gone in the end."""
    place = folder / "staged"
    place.mkdir()

    def stage(arrays: Arrays) -> dict[str, np.ndarray]:
        found = {}
        for name, value in arrays:
            assert value.shape == shapes[name], (name, value.shape, shapes[name])
            if not np.isfinite(value).all():
                raise UsageError(
                    f"{name}: some of its values in the file are not finite; the file is damaged, or of a run that failed"
                )
            path = place / name.replace("/", ".")
            with path.open("wb") as out:
                for part in pieces(value):
                    out.write(np.ascontiguousarray(part, np.float32).data)
            found[name] = _Staged(path, np.float32, "r", shape=value.shape)
        return found

    try:
        yield stage
    finally:
        shutil.rmtree(place)


def _save(folder: pathlib.Path, file: pathlib.Path, trees: dict[str, Any]) -> None:
    versions = {"vlbeit_jax": vlbeit_jax.__version__}
    description = {
        "step": IMPORTED_STEP,
        "trained_on": [],
        "imported_from": file.name,
        "versions": versions,
    }
    log = logging.getLogger("absl")
    log.addFilter(_is_news)
    try:
        checkpointer = Checkpointer(folder / CHECKPOINTS, little_memory=True)
        checkpointer.save(IMPORTED_STEP, trees, description)
        checkpointer.close()
    finally:
        log.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """All but Orbax's warning that there are no shared files to merge: each array has its own."""
    return "Skipping merge of OCDBT checkpoints" not in str(record.msg)


@contextmanager
def _folder(out: pathlib.Path, file: pathlib.Path, report: Report) -> Iterator[pathlib.Path]:
    with published(out) as folder:
        yield folder
        (folder / REPORT_FILE).write_text(f"from {file.name}\n{report}\n")
