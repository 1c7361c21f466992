"""A finished visual tokenizer, opened for use: by pretraining for its targets, by the report for its pictures.

It lies in the workdir of a VQ-KD run, or is an imported encoder of DALL-E's dVAE: a checkpoint with a small file that describes it.
"""

import dataclasses
import json
import pathlib
import shutil
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.dalle import DalleConfig, DalleEncoder
from vlbeit_jax.models.visual_tokenizer import Tokenizer, VisualTokenizer
from vlbeit_jax.tasks.vqkd import make_tokenizer
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.saved_run import (
    CHECKPOINTS,
    CONFIG_FILE,
    IMPORTED_STEP,
    METRICS_FILE,
    finished_step,
    read_config,
    restore,
    tree_fingerprint,
)
from vlbeit_jax.types import Stream

DALLE_FILE = "dalle.json"
KEPT = (
    CONFIG_FILE,
    DALLE_FILE,
    METRICS_FILE,
)  # The report shows from the metrics how the tokenizer was trained.
Tree = Any


class VisualTokens(NamedTuple):
    """A visual tokenizer and where it comes from.

    Attributes:
      folder: where it lies.
      tokenizer: the network.
      step: of its checkpoint.
      saved: what is needed of that checkpoint.
      frozen: the part of it that ``models.visual_tokenizer.encode`` takes.
      fingerprint: a hash of ``frozen``.
    """

    folder: pathlib.Path
    tokenizer: Tokenizer
    step: int
    saved: Tree
    frozen: Tree
    fingerprint: str


def open_visual_tokens(place: str | pathlib.Path) -> VisualTokens:
    """Opens a VQ-KD run or an imported tokenizer (or the copy of one that a pretraining run keeps).

    Raises:
      UsageError: it is none, or has not finished.
    """
    folder = pathlib.Path(place)
    if (folder / DALLE_FILE).is_file():
        config = read_dalle(folder)
        saved = restore(folder, IMPORTED_STEP, {"params": dalle_params(config)})
        return VisualTokens(
            folder, DalleEncoder(config), IMPORTED_STEP, saved, saved, tree_fingerprint(saved)
        )
    config = read_config(folder)
    if config.task != "vqkd":
        raise UsageError(
            f"visual tokenizer {place}: holds a run of task {config.task!r}, not 'vqkd'"
        )
    tokenizer, step = make_tokenizer(config.visual_tokenizer), finished_step(folder, config)
    saved = restore(folder, step, _vqkd_trees(tokenizer))
    frozen = {"params": saved["params"], "codebook": saved["model_state"][Stream.IMAGE]["codebook"]}
    return VisualTokens(folder, tokenizer, step, saved, frozen, tree_fingerprint(frozen))


def keep_copy(tokens: VisualTokens, folder: pathlib.Path) -> None:
    """Writes what is needed to use the tokenizer, so that a pretraining run stands on its own; replaces an older copy."""
    kept = {
        name: (tokens.folder / name).read_bytes()
        for name in KEPT
        if (tokens.folder / name).is_file()
    }
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    checkpointer = Checkpointer(folder / CHECKPOINTS, alone=True)
    checkpointer.save(
        tokens.step, jax.tree.map(np.asarray, tokens.saved), {"fingerprint": tokens.fingerprint}
    )
    checkpointer.close()
    for name, content in kept.items():
        (folder / name).write_bytes(content)


def write_dalle(folder: pathlib.Path, config: DalleConfig) -> None:
    """Describes an encoder whose parameters lie in the folder's checkpoint."""
    (folder / DALLE_FILE).write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n")


def read_dalle(folder: pathlib.Path) -> DalleConfig:
    """The description that ``write_dalle`` left.

    Raises:
      UsageError: it cannot be read.
    """
    try:
        return DalleConfig(**json.loads((folder / DALLE_FILE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{folder}: {DALLE_FILE}: {error}; import the visual tokenizer again"
        ) from error


def dalle_params(config: DalleConfig) -> Tree:
    """Shapes of an encoder's parameters."""
    image = jnp.zeros((1, config.image_size, config.image_size, 3), jnp.uint8)
    return jax.eval_shape(DalleEncoder(config).init, jax.random.key(0), image)["params"]


def _vqkd_trees(tokenizer: VisualTokenizer) -> dict[str, Tree]:
    """Shapes of the part of a checkpoint that is needed."""
    config = tokenizer.config
    image = jnp.zeros((1, config.image_size, config.image_size, 3), jnp.uint8)
    codebook = jnp.zeros((config.codes, config.code_width))
    params = nn.unbox(jax.eval_shape(tokenizer.init, jax.random.key(0), image, codebook))["params"]
    return {
        "params": params,
        "model_state": {Stream.IMAGE: {"codebook": codebook, "use": jnp.zeros(config.codes)}},
    }
