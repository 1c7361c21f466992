"""Pooled states of images and texts under given parameters, in the order of the records."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vlbeit_jax.config.finetune import LabelledImagesConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.data import pipeline
from vlbeit_jax.data.examples.base import Transform
from vlbeit_jax.data.examples.labelled import LabelledImage, LabelledText
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.sampling import EvaluationExamples
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.heads.pooled import pooled_state
from vlbeit_jax.models.multiway import EMBEDDED
from vlbeit_jax.progress import counted
from vlbeit_jax.shapes import Array, Float, Tree
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.training.mesh import on_mesh, padded_batch, put_batch, replicated
from vlbeit_jax.types import Modality

BATCH = 64


@dataclasses.dataclass(frozen=True)
class Pooling:
    """Which states of a network become one vector, and how.

    Attributes:
      pool: "mean" of the states of all patches, or of all word pieces and SEP; "moments": this mean
        and the standard deviation of the same states; or "cls".
      block: after which the states are taken, counted from 0; None: after the last one.
      final_norm: whether the final norm is applied; only after the last block.
      every_layer: whether the pooled embeddings and states after each block come before that which
        ``block`` and ``final_norm`` describe, as one long vector.
    """

    pool: str = "mean"
    block: int | None = None
    final_norm: bool = True
    every_layer: bool = False

    def __post_init__(self):
        """Checks what callers of the package write."""
        assert self.pool in ("mean", "moments", "cls"), self.pool
        assert self.block is None or not self.every_layer, "one block, or every layer"

    def kept(self, depth: int) -> tuple[int, ...]:
        """Returns what is pooled besides the last states, as ``Multiway`` names it."""
        if self.every_layer:
            return (EMBEDDED, *range(depth))
        return () if self.block is None else (self.block,)


MEAN = Pooling()
EVERY_LAYER = Pooling("moments", every_layer=True)


def image_features(
    model: ModelConfig,
    params: Tree,
    records: Records,
    place: Place,
    pooling: Pooling = MEAN,
    view: str = "squash",
) -> Float[np.ndarray, "A D"]:
    """Returns a vector for each record's image, seen without its text.

    Args:
      model: the network's sizes.
      params: on the devices; those of heads are not used.
      records: with ``id`` and an encoded ``image``.
      place: devices, and this host's rows.
      pooling: which states, and how they are pooled.
      view: "squash": the whole image as a square. "crop": the centre.
    """
    settings = LabelledImagesConfig(view=view)
    transform = LabelledImage(settings, model.image_size, classes=(), augment=False)
    return _features(model, params, records, transform, Modality.VISION, place, pooling)


def text_features(
    model: ModelConfig,
    params: Tree,
    texts: Sequence[str],
    tokenizer: TextTokenizer,
    place: Place,
    pooling: Pooling = MEAN,
) -> Float[np.ndarray, "A D"]:
    """Returns a vector for each text, seen without an image.

    Args:
      model: the network's sizes; texts are cut to ``text_positions`` word pieces.
      params: as for images.
      texts: of any length.
      tokenizer: that the network was trained with.
      place: devices, and this host's rows.
      pooling: which states, and how they are pooled.
    """
    records = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    transform = LabelledText(tokenizer, model.text_positions, classes=())
    return _features(model, params, records, transform, Modality.LANGUAGE, place, pooling)


def _features(
    model: ModelConfig,
    params: Tree,
    records: Records,
    transform: Transform,
    modality: Modality,
    place: Place,
    pooling: Pooling,
) -> Float[np.ndarray, "A D"]:
    batch_size = padded_batch(BATCH, place.mesh)
    examples = EvaluationExamples(records, transform, batch_size, seed=place.run.seed)
    batches = pipeline.batches(examples, batch_size, shard=place.shard, loader=place.loader)
    compiled, pooled = _compiled(model, modality, pooling, place.mesh), []
    with closing(batches), on_mesh(place.mesh):
        for batch in counted(batches, "computing features", "records", len(records), batch_size):
            # One step at a time: simulated devices of a CPU must not run two.
            states, weight = jax.device_get(compiled(params, put_batch(batch, place.mesh)))
            pooled.append(states[weight > 0])
    return np.concatenate(pooled)


@functools.cache
def _compiled(
    model: ModelConfig, modality: Modality, pooling: Pooling, mesh: Mesh
) -> Callable[[Tree, Mapping[str, Array]], tuple[Array, Array]]:
    """Returns the compiled function from parameters and a batch to pooled states and weights."""
    backbone = Backbone(model, final_norm=pooling.final_norm and pooling.block is None)
    keep = pooling.kept(model.depth)

    def pooled(params: Tree, batch: Mapping[str, Array]) -> tuple[Array, Array]:
        vision = modality is Modality.VISION
        inputs = Inputs(image=batch["image"]) if vision else Inputs(text=batch["text"])
        # flax leaves the parameters of heads and of the other modality alone.
        encoded: Any = backbone.apply({"params": params}, inputs, keep=keep)
        states = encoded.kept if pooling.block is not None else (*encoded.kept, encoded.tokens.x)
        each = [
            pooled_state(dataclasses.replace(encoded.tokens, x=x), modality, pooling.pool)
            for x in states
        ]
        return jnp.concatenate(each, axis=-1), batch["weight"]

    return jax.jit(pooled, out_shardings=replicated(mesh))
