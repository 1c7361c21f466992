"""A finished visual tokenizer, opened for use: pretraining's targets, pictures of the report.

It lies in the workdir of a VQ-KD run, or is an imported encoder of DALL-E's dVAE: a checkpoint with
a small file that describes it.
"""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.dalle import DalleConfig, DalleEncoder
from vlbeit_jax.models.teacher import PixelTeacher
from vlbeit_jax.models.visual_tokenizer import Tokenizer, VisualTokenizer, tokenizer_shapes
from vlbeit_jax.objectives.distillation import model_state_shapes
from vlbeit_jax.places import place as place_of
from vlbeit_jax.places import remove_tree
from vlbeit_jax.shapes import Array, Int, Tree, UInt8
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.open_vqkd import IMAGE, make_tokenizer
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.tasks.vqkd import VQKD
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.saved_run import (
    CHECKPOINTS,
    CONFIG_FILE,
    IMPORTED_STEP,
    METRICS_FILE,
    finished_step,
    restore,
    tree_fingerprint,
)

DALLE_FILE = "dalle.json"
# The report shows from the metrics how the tokenizer was trained.
KEPT = (CONFIG_FILE, DALLE_FILE, METRICS_FILE)
SETTING = "config.task.visual_tokenizer"  # It names the folder, unless a command has a flag for it.


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


def describe_visual_tokens(place: str | pathlib.Path, setting: str = SETTING) -> Tokenizer:
    """Returns the network of a visual tokenizer, from the small files of its folder.

    Args:
      place: the folder.
      setting: that gives the folder, for messages.

    Raises:
      UsageError: there is none in the folder.
    """
    folder = place_of(place)
    if (folder / DALLE_FILE).is_file():
        return DalleEncoder(read_dalle(folder))
    return make_tokenizer(_vqkd_config(place, setting).task.model)


def open_visual_tokens(place: str | pathlib.Path, setting: str = SETTING) -> VisualTokens:
    """Opens a VQ-KD run, an imported tokenizer, or the copy of one that a pretraining run keeps.

    Args:
      place: the folder.
      setting: that gives the folder, for messages.

    Raises:
      UsageError: the folder holds no visual tokenizer, or its run has not finished.
    """
    folder, tokenizer = place_of(place), describe_visual_tokens(place, setting)
    shapes = tokenizer_shapes(tokenizer)
    if isinstance(tokenizer, DalleEncoder):
        saved = restore(folder, IMPORTED_STEP, shapes)
        return VisualTokens(folder, tokenizer, IMPORTED_STEP, saved, saved, tree_fingerprint(saved))
    step = finished_step(folder, _vqkd_config(place, setting).run.steps)
    model_state = {
        IMAGE: {
            name: jax.ShapeDtypeStruct(shape, jnp.float32)
            for name, shape in model_state_shapes(tokenizer.config).items()
        }
    }
    saved = restore(folder, step, {"params": shapes["params"], "model_state": model_state})
    frozen = {"params": saved["params"], "codebook": saved["model_state"][IMAGE]["codebook"]}
    return VisualTokens(folder, tokenizer, step, saved, frozen, tree_fingerprint(frozen))


def _vqkd_config(place: str | pathlib.Path, setting: str) -> Config:
    config = read_config(place_of(place), setting)
    if not isinstance(config.task, VQKD):
        raise UsageError(
            f"visual tokenizer {place}: holds a run of task {config.task.kind!r}, not 'vqkd'"
        )
    return config


def pictures_of(
    visual: VisualTokens, tokens: Int[Array, "B N"]
) -> UInt8[np.ndarray, "B height width 3"]:
    """Returns pictures that the tokenizer's decoder draws of visual tokens.

    Raises:
      UsageError: it predicts no pixels.
    """
    require_drawing(visual)
    vectors = jnp.take(visual.frozen["codebook"], tokens, axis=0)
    variables = {"params": visual.frozen["params"]}
    decoded: Any = visual.tokenizer.apply(variables, vectors, method="decode")
    return np.asarray(PixelTeacher(visual.tokenizer.config.patch_size).images(decoded))


def require_drawing(visual: VisualTokens) -> None:
    """Refuses a tokenizer whose decoder predicts no pixels.

    Raises:
      UsageError: it is such a one.
    """
    if not draws_pictures(visual):
        raise UsageError(
            f"the visual tokenizer in {visual.folder} cannot draw pictures: only one that was "
            "trained with task.model.teacher=pixels can"
        )


def draws_pictures(visual: VisualTokens) -> bool:
    """Returns whether a tokenizer's decoder predicts pixels."""
    tokenizer = visual.tokenizer
    return isinstance(tokenizer, VisualTokenizer) and tokenizer.config.teacher == "pixels"


def keep_copy(tokens: VisualTokens, folder: pathlib.Path) -> None:
    """Copies the tokenizer into a pretraining run, so that the run is self-contained.

    Replaces an older copy.
    """
    kept = {
        name: (tokens.folder / name).read_bytes()
        for name in KEPT
        if (tokens.folder / name).is_file()
    }
    remove_tree(folder)
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
    """Returns the description that ``write_dalle`` left.

    Raises:
      UsageError: it cannot be read.
    """
    try:
        return DalleConfig(**json.loads((folder / DALLE_FILE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{folder}: {DALLE_FILE}: {error}; import the visual tokenizer again"
        ) from error
