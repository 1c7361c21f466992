"""VQ-KD's teachers with weights: opens CLIP and DINO as ``vlbeit_jax.convert`` imports them."""

import dataclasses
import json
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlbeit_jax.config.networks import VisualTokenizerConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.teacher import (
    USUAL_ACTIVATIONS,
    PixelTeacher,
    Teacher,
    ViT,
    ViTConfig,
    ViTTeacher,
    teacher_width,
)
from vlbeit_jax.training.saved_run import IMPORTED_STEP, restore

TEACHER_FILE = "teacher.json"
Tree = Any


def describe_teacher(config: VisualTokenizerConfig) -> Teacher:
    """Returns the teacher of a visual tokenizer, without opening anything.

    A teacher with weights is assumed to be a ViT of base size.
    """
    if config.teacher == "pixels":
        return PixelTeacher(config.patch_size)
    width = teacher_width(config.teacher, config.patch_size)
    sizes = (768, 12, 12, 3072, width, USUAL_ACTIVATIONS[config.teacher])
    return ViTTeacher(ViTConfig(config.teacher, config.image_size, config.patch_size, *sizes))


def read_teacher(config: VisualTokenizerConfig) -> Teacher:
    """Returns the teacher of a visual tokenizer, from the small file of its folder.

    Raises:
      UsageError: its folder is missing, of another kind, or cuts images in another way.
    """
    if config.teacher == "pixels":
        return PixelTeacher(config.patch_size)
    folder = pathlib.Path(config.teacher_weights)
    how = (
        "import the weights with python -m vlbeit_jax.convert --from=FILE "
        f"--format={config.teacher} --out=DIR"
    )
    if not config.teacher_weights:
        raise UsageError(
            f"task.model.teacher={config.teacher} needs task.model.teacher_weights; {how}"
        )
    try:
        described = json.loads((folder / TEACHER_FILE).read_text())
        usual = {"activation": USUAL_ACTIVATIONS[config.teacher]}
        vit = ViTConfig(**usual | described)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"task.model.teacher_weights={folder}: no imported teacher ({error}); {how}"
        ) from error
    wanted = {
        "kind": config.teacher,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "out": teacher_width(config.teacher, config.patch_size),
    }
    wrong = [
        f"{name} is {getattr(vit, name)}, needed is {value}"
        for name, value in wanted.items()
        if getattr(vit, name) != value
    ]
    if wrong:
        raise UsageError(f"task.model.teacher_weights={folder}: {'; '.join(wrong)}")
    return ViTTeacher(vit)


def teacher_shapes(teacher: Teacher) -> Tree:
    """Returns the shapes of a teacher's parameters; pixels have none."""
    return abstract_params(teacher.config) if isinstance(teacher, ViTTeacher) else {}


def restore_teacher(config: VisualTokenizerConfig, teacher: Teacher) -> Tree:
    """Returns the parameters of a teacher that ``read_teacher`` gave."""
    if not isinstance(teacher, ViTTeacher):
        return {}
    folder = pathlib.Path(config.teacher_weights)
    return restore(folder, IMPORTED_STEP, {"params": teacher_shapes(teacher)})["params"]


def abstract_params(vit: ViTConfig) -> Tree:
    """Shapes of a teacher's parameters."""
    image = jax.ShapeDtypeStruct((1, vit.image_size, vit.image_size, 3), jnp.uint8)
    return nn.unbox(jax.eval_shape(ViT(vit).init, jax.eval_shape(jax.random.key, 0), image))[
        "params"
    ]


def write_teacher(folder: pathlib.Path, vit: ViTConfig) -> None:
    """Describes a teacher whose parameters lie in the folder's checkpoint."""
    (folder / TEACHER_FILE).write_text(json.dumps(dataclasses.asdict(vit), indent=1) + "\n")
