"""VQ-KD's teachers: pixels, CLIP and DINO as ``vlbeit_jax.convert`` imports them, and runs."""

import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlbeit_jax.config.networks import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.teacher import (
    USUAL_ACTIVATIONS,
    PixelTeacher,
    RunTeacher,
    Teacher,
    ViT,
    ViTConfig,
    ViTTeacher,
    target_width,
)
from vlbeit_jax.places import place
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks.runs import read_network
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.param_names import check_shapes, leaf_name
from vlbeit_jax.training.saved_run import CHECKPOINTS, IMPORTED_STEP, newest_step, restore

TEACHER_FILE = "teacher.json"


def describe_teacher(config: VisualTokenizerConfig) -> Teacher:
    """Returns the teacher of a visual tokenizer, without opening anything.

    A teacher with weights is assumed to be of base size.
    """
    if config.teacher == "pixels":
        return PixelTeacher(config.patch_size)
    width = target_width(config)
    if config.teacher == "run":
        model = ModelConfig(image_size=config.image_size, patch_size=config.patch_size, width=width)
        return RunTeacher(model, config.teacher_blocks)
    sizes = (768, 12, 12, 3072, width, USUAL_ACTIVATIONS[config.teacher])
    return ViTTeacher(ViTConfig(config.teacher, config.image_size, config.patch_size, *sizes))


def read_teacher(config: VisualTokenizerConfig) -> Teacher:
    """Returns the teacher of a visual tokenizer, from the small files of its folder.

    Raises:
      UsageError: its folder is missing, of another kind, or cuts images in another way.
    """
    if config.teacher == "pixels":
        return PixelTeacher(config.patch_size)
    return _read_run(config) if config.teacher == "run" else _read_import(config)


def _read_import(config: VisualTokenizerConfig) -> ViTTeacher:
    folder = place(config.teacher_weights)
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
        "out": target_width(config),
    }
    _check(folder, wanted, vit)
    return ViTTeacher(vit)


def _read_run(config: VisualTokenizerConfig) -> RunTeacher:
    if not config.teacher_weights:
        raise UsageError(
            "task.model.teacher=run needs task.model.teacher_weights: the folder of a run of "
            "pretraining or fine-tuning, or of an imported model"
        )
    folder = place(config.teacher_weights)
    _, network = read_network(folder, "config.task.model.teacher_weights")
    wanted = {"image_size": config.image_size, "patch_size": config.patch_size}
    _check(folder, wanted, network)
    if config.teacher_width != network.width:
        raise UsageError(
            f"task.model.teacher_width={config.teacher_width}, but the network in {folder} is "
            f"{network.width} wide; set config.task.model.teacher_width={network.width}"
        )
    if config.teacher_blocks > network.depth:
        raise UsageError(
            f"task.model.teacher_blocks={config.teacher_blocks}, but the network in {folder} has "
            f"{network.depth} blocks"
        )
    return RunTeacher(dataclasses.replace(network, drop_path=0.0), config.teacher_blocks)


def _check(folder: pathlib.Path, wanted: dict[str, Any], actual: Any) -> None:
    wrong = [
        f"{name} is {getattr(actual, name)}, needed is {value}"
        for name, value in wanted.items()
        if getattr(actual, name) != value
    ]
    if wrong:
        settings = {"kind": "teacher", "out": "teacher_width"}
        flags = [
            f"--config.task.model.{settings.get(name, name)}={getattr(actual, name)}"
            for name, value in wanted.items()
            if getattr(actual, name) != value
        ]
        raise UsageError(
            f"task.model.teacher_weights={folder}: {'; '.join(wrong)}. For this teacher, set "
            f"{' '.join(flags)}"
        )


def teacher_shapes(teacher: Teacher) -> Tree:
    """Returns the shapes of a teacher's parameters; pixels have none."""
    if isinstance(teacher, RunTeacher):
        return nn.unbox(teacher.init())
    return abstract_params(teacher.config) if isinstance(teacher, ViTTeacher) else {}


def restore_teacher(config: VisualTokenizerConfig, teacher: Teacher) -> Tree:
    """Returns the parameters of a teacher that ``read_teacher`` gave."""
    shapes, folder = teacher_shapes(teacher), place(config.teacher_weights)
    if isinstance(teacher, RunTeacher):
        return _part_of_run(folder, shapes)
    if isinstance(teacher, ViTTeacher):
        return restore(folder, IMPORTED_STEP, {"params": shapes})["params"]
    return {}


def _part_of_run(folder: pathlib.Path, shapes: Tree) -> Tree:
    """Returns those of a run's parameters that are asked for, on the first device."""
    step = newest_step(folder)
    if step is None:
        raise UsageError(f"task.model.teacher_weights={folder}: the run has no checkpoint yet")
    with contextlib.closing(Checkpointer(folder / CHECKPOINTS, read_only=True)) as checkpointer:
        leaves = checkpointer.leaves(step, "params")
    names = {leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)}
    saved = {name: shape for name, shape in leaves.shapes.items() if name in names}
    check_shapes(saved, shapes, f"task.model.teacher_weights={folder} holds another model")
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.device_put(leaves[leaf_name(path)], jax.local_devices()[0]), shapes
    )


def abstract_params(vit: ViTConfig) -> Tree:
    """Returns the shapes of a teacher's parameters."""
    image = jax.ShapeDtypeStruct((1, vit.image_size, vit.image_size, 3), jnp.uint8)
    return nn.unbox(jax.eval_shape(ViT(vit).init, jax.eval_shape(jax.random.key, 0), image))[
        "params"
    ]


def write_teacher(folder: pathlib.Path, vit: ViTConfig) -> None:
    """Describes a teacher whose parameters lie in the folder's checkpoint."""
    (folder / TEACHER_FILE).write_text(json.dumps(dataclasses.asdict(vit), indent=1) + "\n")
