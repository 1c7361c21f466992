"""A run as conversion sees it: configuration, names and shapes, arrays one at a time."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from vlbeit_jax.config import Config, ModelConfig, VisualTokenizerConfig
from vlbeit_jax.convert.rules import Shape, Tensors
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.dalle import DalleConfig
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.tasks.masked_model import TEXT_TOKENIZER, VISUAL_TOKENIZER
from vlbeit_jax.tasks.visual_tokens import DALLE_FILE, read_dalle
from vlbeit_jax.tasks.vqkd import make_tokenizer
from vlbeit_jax.training.checkpoint import Checkpointer, Leaves, leaf_name
from vlbeit_jax.training.saved_run import CHECKPOINTS, IMPORTED_STEP, finished_step, read_config
from vlbeit_jax.types import Stream

CODEBOOK = "codebook"


class Visual(NamedTuple):
    """A visual tokenizer: its parameters (and VQ-KD's codebook), and what it is."""

    params: Tensors
    config: VisualTokenizerConfig | DalleConfig


@dataclasses.dataclass(frozen=True)
class Run:
    """A pretraining run to be exported.

    Attributes:
      folder: its workdir.
      config: its whole configuration.
      step: steps taken.
      params: parameters of the model.
      visual: its visual tokenizer, None for a run without images.
      text_tokenizer: its folder, None for a run without texts.
    """

    folder: pathlib.Path
    config: Config
    step: int
    params: Tensors
    visual: Visual | None
    text_tokenizer: pathlib.Path | None

    @property
    def model(self) -> ModelConfig:
        """The network's part of the configuration."""
        return self.config.model


def open_run(folder: pathlib.Path) -> Run:
    """Opens the workdir of a pretraining run.

    Raises:
      UsageError: it is none, or has no checkpoint yet.
    """
    config = read_config(folder)
    if config.task != "pretrain":
        raise UsageError(
            f"--from={folder}: holds a run of task {config.task!r}; a pretraining run is needed"
        )
    checkpoints = folder / CHECKPOINTS
    checkpointer = Checkpointer(checkpoints, read_only=True) if checkpoints.is_dir() else None
    step = checkpointer.latest() if checkpointer else None
    if checkpointer is None or step is None:
        raise UsageError(f"--from={folder}: the run has no checkpoint yet")
    visual = (
        open_visual(folder / VISUAL_TOKENIZER) if (folder / VISUAL_TOKENIZER).is_dir() else None
    )
    text = folder / TEXT_TOKENIZER
    return Run(
        folder,
        config,
        step,
        checkpointer.leaves(step, "params"),
        visual,
        text if text.is_dir() else None,
    )


def open_visual(folder: pathlib.Path) -> Visual:
    """A finished VQ-KD run, or DALL-E's encoder as it was imported."""
    if (folder / DALLE_FILE).is_file():
        return Visual(
            Checkpointer(folder / CHECKPOINTS, read_only=True).leaves(IMPORTED_STEP, "params"),
            read_dalle(folder),
        )
    config = read_config(folder)
    step = finished_step(folder, config)
    checkpointer = Checkpointer(folder / CHECKPOINTS, read_only=True)
    extra = checkpointer.leaves(step, "extra")
    return Visual(WithCodebook(checkpointer.leaves(step, "params"), extra), config.visual_tokenizer)


class WithCodebook:
    """A visual tokenizer's parameters, and its codebook under the name ``codebook``."""

    def __init__(self, params: Leaves, extra: Leaves):
        """``extra`` is the objective's part of the state."""
        self._params, self._extra, self._place = params, extra, f"{Stream.IMAGE}/{CODEBOOK}"
        self.shapes: Mapping[str, Shape] = params.shapes | {CODEBOOK: extra.shapes[self._place]}

    def __getitem__(self, name: str) -> np.ndarray:
        """A parameter, or the codebook."""
        return self._extra[self._place] if name == CODEBOOK else self._params[name]


def model_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Every parameter of a model and its shape, without making one."""
    return _shapes(
        jax.eval_shape(
            lambda key: VLBEiT(config).init(key, method="init_all")["params"], jax.random.key(0)
        )
    )


def visual_shapes(config: VisualTokenizerConfig) -> dict[str, Shape]:
    """Every parameter of a visual tokenizer, and its codebook."""
    image = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), np.uint8)
    codebook = jax.ShapeDtypeStruct((config.codes, config.code_width), np.float32)
    tokenizer = make_tokenizer(config)
    return _shapes(jax.eval_shape(tokenizer.init, jax.random.key(0), image, codebook)["params"]) | {
        CODEBOOK: codebook.shape
    }


def _shapes(tree: object) -> dict[str, Shape]:
    leaves = jax.tree_util.tree_leaves_with_path(nn.unbox(tree))
    return {leaf_name(path): tuple(leaf.shape) for path, leaf in leaves}


def as_tree(arrays: Mapping[str, np.ndarray]) -> dict:
    """Arrays by path as the nested dictionary that the networks take."""
    tree: dict = {}
    for name, value in arrays.items():
        *path, last = name.split("/")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return tree
