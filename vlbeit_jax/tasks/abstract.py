"""A task without its data: what the train step of a configuration computes, in shapes alone.

For everything that asks about a step before there are data: compiling ahead of time, counting operations, benchmarks.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from vlbeit_jax.config import Config
from vlbeit_jax.data.examples.masked import masked_specs
from vlbeit_jax.models.teacher import PixelTeacher, ViTConfig, ViTTeacher, teacher_width
from vlbeit_jax.models.visual_tokenizer import cast_tokenizer
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.objectives.base import Objective
from vlbeit_jax.objectives.distillation import Distillation
from vlbeit_jax.objectives.masked_prediction import MaskedPrediction
from vlbeit_jax.tasks.teachers import abstract_params
from vlbeit_jax.tasks.vqkd import make_tokenizer
from vlbeit_jax.training.optimizer import make_optimizer
from vlbeit_jax.training.schedule import Schedule
from vlbeit_jax.training.sharding import batch_sharding, check_batch, replicated, shardings
from vlbeit_jax.training.state import TrainState, declarations, state_maker
from vlbeit_jax.training.step import TrainStep, make_train_step
from vlbeit_jax.types import Stream

Tree = Any


class AbstractTask(NamedTuple):
    """What a step is made of.

    Attributes:
      objectives: by stream.
      init_params: parameters from a key, boxed with their logical axes.
      frozen: shapes of the parameters that are used and never change.
      batches: by stream, shapes of the rows of all hosts together.
      tokens: by stream, tokens of a row that pass through the trained Transformer.
    """

    objectives: Mapping[str, Objective]
    init_params: Callable[[jax.Array], Tree]
    frozen: Tree
    batches: Mapping[str, Mapping[str, jax.ShapeDtypeStruct]]
    tokens: Mapping[str, int]


class AbstractStep(NamedTuple):
    """A step on a mesh, ready to be lowered.

    Attributes:
      step: of ``training.step``.
      make_state: a fresh state from a seed.
      state: its shapes with shardings, as are the next two.
      frozen: of networks that only look on.
      batches: by stream.
    """

    step: TrainStep
    make_state: Callable[[int], TrainState]
    state: TrainState
    frozen: Tree
    batches: dict[Any, Any]


def abstract_step(config: Config, mesh: Mesh) -> AbstractStep:
    """The step of a configuration on a mesh.

    Raises:
      UsageError: the mesh does not divide a batch or a parameter.
    """
    task = abstract_task(config)
    for stream, batch in task.batches.items():
        check_batch(stream, batch["weight"].shape[0], config.run.accumulate, mesh)
    info = declarations(task.init_params).info
    optimizer = make_optimizer(config.optimizer, config.run.steps, info)
    make_state, state = state_maker(
        task.init_params,
        lambda: {n: o.init_model_state() for n, o in task.objectives.items()},
        optimizer,
        mesh,
    )
    step = make_train_step(
        task.objectives,
        optimizer,
        info,
        shardings(state.params),
        mesh,
        seed=config.run.seed,
        accumulate=config.run.accumulate,
    )
    return AbstractStep(
        step,
        make_state,
        state,
        _placed(task.frozen, replicated(mesh)),
        _placed(task.batches, batch_sharding(mesh)),
    )


def _placed(tree: Tree, place: NamedSharding) -> Tree:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree
    )


def abstract_task(config: Config) -> AbstractTask:
    """The task of a configuration, without opening anything that it names.

    A pretraining's visual tokenizer is a VQ-KD of ``config.visual_tokenizer``; a teacher with weights is a ViT of base size.
    """
    return _vqkd(config) if config.task == "vqkd" else _pretrain(config)


def _pretrain(config: Config) -> AbstractTask:
    streams = Schedule.parse(config.run.schedule).streams
    network, tokenizer = VLBEiT(config.model), make_tokenizer(config.visual_tokenizer)
    frozen, cached = {}, bool(config.data.visual_tokens)
    if any(stream.has_image for stream in streams) and not cached:
        image, codebook = _image(config), _codebook(config)
        params = nn.unbox(jax.eval_shape(tokenizer.init, jax.random.key(0), image, codebook))[
            "params"
        ]
        frozen = jax.eval_shape(
            functools.partial(cast_tokenizer, tokenizer), {"params": params, "codebook": codebook}
        )
    batches, tokens = {}, {}
    for stream in streams:
        data, image_size = (
            getattr(config.data, stream),
            config.model.image_size if stream.has_image else 0,
        )
        specs = masked_specs(data, image_size, stream.has_text, cached)
        batches[stream] = {
            name: jax.ShapeDtypeStruct((data.batch_size, *spec.shape), spec.dtype)
            for name, spec in specs.items()
        }
        image_tokens = config.model.patches + 1 if stream.has_image else 0
        tokens[stream] = image_tokens + (data.text_length if stream.has_text else 0)
    objectives: dict[str, Objective] = {
        stream: MaskedPrediction(stream, network, tokenizer)
        for stream in Stream
        if stream in streams
    }
    return AbstractTask(
        objectives,
        lambda key: network.init(key, method="init_all")["params"],
        frozen,
        batches,
        tokens,
    )


def _vqkd(config: Config) -> AbstractTask:
    visual, data = (
        config.visual_tokenizer,
        dataclasses.replace(config.data.image, num_masked_patches=0),
    )
    tokenizer, teacher, frozen = make_tokenizer(visual), PixelTeacher(visual.patch_size), {}
    if visual.teacher != "pixels":
        out = teacher_width(visual.teacher, visual.patch_size)
        vit = ViTConfig(
            visual.teacher, visual.image_size, visual.patch_size, 768, 12, 12, 3072, out
        )
        teacher, frozen = ViTTeacher(vit), abstract_params(vit)
    specs = masked_specs(data, visual.image_size, has_text=False)
    batch = {
        name: jax.ShapeDtypeStruct((data.batch_size, *spec.shape), spec.dtype)
        for name, spec in specs.items()
    }

    def init_params(key: jax.Array) -> Tree:
        zeros = (jnp.zeros(leaf.shape, leaf.dtype) for leaf in (_image(config), _codebook(config)))
        return tokenizer.init(key, *zeros)["params"]

    return AbstractTask(
        {Stream.IMAGE: Distillation(tokenizer, teacher, data.batch_size)},
        init_params,
        frozen,
        {Stream.IMAGE: batch},
        {Stream.IMAGE: visual.grid**2 + 1},
    )


def _image(config: Config) -> jax.ShapeDtypeStruct:
    size = config.visual_tokenizer.image_size
    return jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)


def _codebook(config: Config) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(
        (config.visual_tokenizer.codes, config.visual_tokenizer.code_width), jnp.float32
    )
