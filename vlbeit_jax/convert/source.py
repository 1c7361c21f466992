"""Runs as conversion reads them: configuration, and parameters by name."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from vlbeit_jax.config.networks import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.convert.rules import Arrays, Shape
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.dalle import DalleConfig
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, VISUAL_TOKENIZER
from vlbeit_jax.tasks.open_vqkd import IMAGE, make_tokenizer
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.tasks.visual_tokens import DALLE_FILE, read_dalle
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.saved_run import CHECKPOINTS, IMPORTED_STEP, finished_step, read_newest

CODEBOOK = "codebook"  # Name of VQ-KD's codebook among the parameters here.


class Visual(NamedTuple):
    """A visual tokenizer: its parameters, with VQ-KD's codebook among them, and its settings."""

    params: Arrays
    config: VisualTokenizerConfig | DalleConfig


@dataclasses.dataclass(frozen=True)
class Run:
    """A pretraining run that is exported.

    Attributes:
      folder: its workdir.
      config: its whole configuration.
      step: steps taken.
      params: the model's parameters by name.
      visual: its visual tokenizer; None for a run without images.
      text_tokenizer: the folder of its text tokenizer; None for a run without texts.
    """

    folder: pathlib.Path
    config: Config
    step: int
    params: Arrays
    visual: Visual | None
    text_tokenizer: pathlib.Path | None

    @property
    def model(self) -> ModelConfig:
        """The network's part of the configuration."""
        return self.config.task.model


def is_pretraining(folder: pathlib.Path) -> bool:
    """Tells whether a folder holds a pretraining run, rather than a run of another task.

    Raises:
      UsageError: the folder does not belong to a run.
    """
    return isinstance(read_config(folder).task, Pretrain)


def read_run(folder: pathlib.Path, step: int = 0) -> Run:
    """Reads a checkpoint of a pretraining run.

    Args:
      folder: of the run.
      step: to read, and no other; 0: the newest one that is not damaged.

    Raises:
      Damaged: this step cannot be read, or none can.
      UsageError: the folder holds no pretraining run, or the run has no checkpoint yet.
    """
    config = read_config(folder)
    if not isinstance(config.task, Pretrain):
        raise UsageError(
            f"--from={folder} holds a run of task {config.task.kind!r}; a pretraining run is needed"
        )
    checkpointer = Checkpointer(folder / CHECKPOINTS, read_only=True)
    step, params = read_newest(folder, lambda each: _read_tree(checkpointer, each, "params"), step)
    visual, text = folder / VISUAL_TOKENIZER, folder / TEXT_TOKENIZER
    return Run(
        folder,
        config,
        step,
        params,
        read_visual(visual) if visual.is_dir() else None,
        text if text.is_dir() else None,
    )


def read_visual(folder: pathlib.Path) -> Visual:
    """Reads a finished VQ-KD run, or an import of DALL-E's encoder."""
    checkpointer = Checkpointer(folder / CHECKPOINTS, read_only=True)
    if (folder / DALLE_FILE).is_file():
        return Visual(_read_tree(checkpointer, IMPORTED_STEP, "params"), read_dalle(folder))
    config = read_config(folder)
    step = finished_step(folder, config.run.steps)
    params = _read_tree(checkpointer, step, "params")
    params[CODEBOOK] = checkpointer.leaves(step, "model_state")[f"{IMAGE}/{CODEBOOK}"]
    return Visual(params, config.task.model)


def _read_tree(checkpointer: Checkpointer, step: int, name: str) -> dict[str, np.ndarray]:
    # A packed run (tools/pack_model.py) holds float16, which every format takes as float32.
    leaves = checkpointer.leaves(step, name)
    return {leaf: np.asarray(array, np.float32) for leaf, array in leaves.items()}


def model_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Returns every parameter of a model with its shape, without making one."""
    init = jax.eval_shape(
        lambda key: VLBEiT(config).init(key, method="init_all")["params"], jax.random.key(0)
    )
    return tree_shapes(init)


def visual_shapes(config: VisualTokenizerConfig) -> dict[str, Shape]:
    """Returns every parameter of a visual tokenizer with its shape, the codebook included."""
    image = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), np.uint8)
    codebook = jax.ShapeDtypeStruct((config.codes, config.code_width), np.float32)
    tokenizer = make_tokenizer(config)
    init = jax.eval_shape(tokenizer.init, jax.eval_shape(jax.random.key, 0), image, codebook)[
        "params"
    ]
    return tree_shapes(init) | {CODEBOOK: codebook.shape}


def tree_shapes(tree: object) -> dict[str, Shape]:
    """Returns the shapes of a tree's leaves by name."""
    leaves = jax.tree_util.tree_leaves_with_path(nn.unbox(tree))
    return {leaf_name(path): tuple(leaf.shape) for path, leaf in leaves}


def as_tree(arrays: Mapping[str, np.ndarray]) -> dict:
    """Returns arrays by path as the nested dictionary that the networks take."""
    tree: dict = {}
    for name, value in arrays.items():
        *path, last = name.split("/")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree
