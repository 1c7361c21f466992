"""A finished visual tokenizer, opened for use: by pretraining for its targets, by the report for its pictures."""

import pathlib
import shutil
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlbeit_jax.config import Config
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.visual_tokenizer import VisualTokenizer
from vlbeit_jax.tasks.vqkd import make_tokenizer
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.run_folder import CHECKPOINTS, METRICS_FILE, finished_step, read_config, restore, tree_fingerprint, write_config
from vlbeit_jax.types import Stream

Tree = Any


class VisualTokens(NamedTuple):
    """Attributes: where it lies, the network, its ``{"params", "codebook"}``, the run's configuration, a hash of the weights."""

    folder: pathlib.Path
    tokenizer: VisualTokenizer
    frozen: Tree
    config: Config
    fingerprint: str


def open_visual_tokens(place: str | pathlib.Path) -> VisualTokens:
    """Opens the workdir of a VQ-KD run (or the copy of one that a pretraining run keeps).

    Raises:
      UsageError: it is none, or has not finished.
    """
    folder = pathlib.Path(place)
    config = read_config(folder)
    if config.task != "vqkd":
        raise UsageError(f"data.visual_tokenizer={place}: holds a run of task {config.task!r}, not 'vqkd'")
    tokenizer = make_tokenizer(config.visual_tokenizer)
    found = restore(folder, finished_step(folder, config), _abstract(tokenizer))
    frozen = {"params": found["params"], "codebook": found["extra"][Stream.IMAGE]["codebook"]}
    return VisualTokens(folder, tokenizer, frozen, config, tree_fingerprint(frozen))


def keep_copy(tokens: VisualTokens, folder: pathlib.Path) -> None:
    """Writes what is needed to use the tokenizer, so that a pretraining run stands on its own; replaces an older copy."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    checkpointer = Checkpointer(folder / CHECKPOINTS)
    extra = {Stream.IMAGE: {"codebook": tokens.frozen["codebook"], "use": jnp.ones(tokens.tokenizer.config.codes)}}
    checkpointer.save(tokens.config.run.steps, {"params": tokens.frozen["params"], "extra": extra}, {"fingerprint": tokens.fingerprint})
    checkpointer.close()
    write_config(folder, tokens.config)
    if (tokens.folder / METRICS_FILE).is_file():
        shutil.copy(tokens.folder / METRICS_FILE, folder)  # The report shows how the tokenizer was trained.


def _abstract(tokenizer: VisualTokenizer) -> dict[str, Tree]:
    """Shapes of the saved trees, each on one device of this process."""
    config = tokenizer.config
    image = jnp.zeros((1, config.image_size, config.image_size, 3), jnp.uint8)
    codebook = jnp.zeros((config.codes, config.code_width))
    params = nn.unbox(jax.eval_shape(tokenizer.init, jax.random.key(0), image, codebook))["params"]
    extra = {Stream.IMAGE: {"codebook": codebook, "use": jnp.zeros(config.codes)}}
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), {"params": params, "extra": extra})
