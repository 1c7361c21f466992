"""Segmentation: cross-entropy of every labelled pixel, by both heads of UPerNet."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vlbeit_jax.metrics.segmentation import IGNORED
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.convolutions import BATCH, MOMENTS
from vlbeit_jax.models.segmenter import Segmenter
from vlbeit_jax.objectives.base import (
    ROW,
    Context,
    Objective,
    Term,
    Tree,
    Variables,
    uniform_per_row,
)
from vlbeit_jax.ops.maps import resize_map
from vlbeit_jax.shapes import Array, Float, UInt8

SEGMENT, AUXILIARY = "segment", "auxiliary"
Maps = tuple[Float[Array, "B G G D"], ...]


@dataclasses.dataclass(frozen=True)
class Segmentation(Objective):
    """Cross-entropy over pixels; two terms, ``segment`` and ``auxiliary``.

    A batch holds ``image``, and ``mask``: the class of each pixel, or 255 where it does not count.
    Losses are means over the pixels that count. mmsegmentation 0.11 divides by all pixels instead.
    Logits are resized to the mask, not the mask to the logits.

    With BatchNorm, statistics are those of the whole batch, over all devices and microbatches. The
    backbone still goes through one microbatch after the other, and the heads see all rows of a
    device at once. The model state is the running means and variances, which inference uses.

    Attributes:
      network: gives logits.
      auxiliary_weight: of the auxiliary head's loss, which is logged with this factor.
      dropout: share of the heads' last channels that are dropped, each in all places of a row.
      momentum: weight of a batch in the running statistics.
    """

    network: Segmenter
    auxiliary_weight: float = 0.4
    dropout: float = 0.1
    momentum: float = 0.1

    @property
    def whole_batch(self) -> bool:
        """Whether the heads normalise over the batch."""
        return self.network.upernet.norm == BATCH

    def init_model_state(self) -> Tree:
        """Returns means of 0 and variances of 1, as PyTorch starts; nothing without BatchNorm."""
        if not self.whole_batch:
            return {}

        def init(key: Array) -> Tree:
            return self.network.init(key, method="init_all")[MOMENTS]

        shapes = jax.eval_shape(init, jax.eval_shape(jax.random.key, 0))
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full(leaf.shape, float(path[-1].key == "variance")), shapes
        )

    def weights(self, batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
        """Returns the number of pixels that count."""
        count = _counted(batch).sum()
        return {name: count for name in self._terms}

    def __call__(
        self, variables: Variables, batch: dict[str, Array], ctx: Context
    ) -> tuple[dict[str, Term], Tree]:
        """Returns the losses, and the batch's moments if the heads normalise over it."""
        draws = None
        if self.dropout:
            key = jax.random.fold_in(ctx.key, 1)
            draws = uniform_per_row(key, batch[ROW], self.network.dropped_channels)
        logits, moments = self.network.apply(
            {"params": variables.params},
            self._features(variables.params, batch, ctx),
            draws,
            self.dropout,
            ctx.row_axes,
            method="training_logits",
            mutable=[MOMENTS],
        )
        counted = _counted(batch)
        terms = {SEGMENT: _term(logits.main, batch["mask"], counted, 1.0)}
        if logits.auxiliary is not None:
            share = self.auxiliary_weight
            terms[AUXILIARY] = _term(logits.auxiliary, batch["mask"], counted, share)
        # The step sums statistics over devices, which have equal ones.
        devices = jax.lax.psum(1, ctx.row_axes) if ctx.row_axes else 1
        return terms, jax.tree.map(lambda leaf: leaf / devices, moments.get(MOMENTS, {}))

    def update(self, model_state: Tree, statistics: Tree) -> tuple[Tree, dict[str, Array]]:
        """Returns the running statistics after a step."""
        share = self.momentum
        moved = jax.tree.map(
            lambda old, new: (1 - share) * old + share * new, model_state, statistics
        )
        return moved, {}

    def logits(self, params: Tree, batch: dict[str, Array]) -> Float[Array, "B h w C"]:
        """Returns the logits of images at a quarter of their side, for evaluation.

        Args:
          params: with running statistics, if there are any (``with_statistics``).
          batch: with ``image``.
        """
        logits: Any = self.network.apply({"params": params}, Inputs(image=batch["image"]))
        return logits

    @property
    def _terms(self) -> tuple[str, ...]:
        return (SEGMENT, AUXILIARY) if self.network.upernet.auxiliary else (SEGMENT,)

    def _features(self, params: Tree, batch: dict[str, Array], ctx: Context) -> Maps:
        """Returns the maps of all rows here."""

        def features(rows: dict[str, Array]) -> Maps:
            config, drop_path = self.network.config, None
            if config.drop_path:
                drop_path = uniform_per_row(ctx.key, rows[ROW], config.depth, 2)
            maps: Any = self.network.apply(
                {"params": params}, Inputs(image=rows["image"]), drop_path, method="features"
            )
            return maps

        rows = {name: batch[name] for name in ("image", ROW)}
        if not self.whole_batch or ctx.microbatches == 1:
            return features(rows)
        # Activations of one microbatch at a time: the backward pass computes them again.
        parts = jax.tree.map(lambda leaf: leaf.reshape(ctx.microbatches, -1, *leaf.shape[1:]), rows)
        maps = jax.lax.map(jax.checkpoint(features), parts)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), maps)


def with_statistics(params: Tree, statistics: Tree) -> Tree:
    """Returns parameters for inference: each BatchNorm has its mean and variance beside its scale.

    Args:
      params: as they are trained.
      statistics: the model state; empty without BatchNorm.
    """
    joined = dict(params)
    for name, value in statistics.items():
        inner = isinstance(value, dict)
        joined[name] = with_statistics(params.get(name, {}), value) if inner else value
    return joined


def _counted(batch: dict[str, Array]) -> Float[Array, "B height width"]:
    """Returns 1 for each pixel that counts, 0 for the others."""
    return (batch["mask"] != IGNORED) * batch["weight"][:, None, None]


def _term(
    logits: Float[Array, "B h w C"],
    mask: UInt8[Array, "B height width"],
    counted: Float[Array, "B height width"],
    share: float,
) -> Term:
    # Logits at the size of the mask take 150 MB an image of ADE20K: they are computed again for the
    # backward pass.
    loss, right = jax.checkpoint(_of_pixels)(logits, mask)
    sums = {"accuracy": (right * counted).sum()}
    return Term(share * (loss * counted).sum(), counted.sum(), sums)


def _of_pixels(logits: Array, mask: Array) -> tuple[Array, Array]:
    """Returns the loss of each pixel, and whether it is right."""
    resized = resize_map(logits.astype(jnp.float32), *mask.shape[1:])
    target = jnp.where(mask == IGNORED, 0, mask).astype(jnp.int32)
    chosen = jnp.take_along_axis(resized, target[..., None], axis=-1)[..., 0]
    loss = jax.nn.logsumexp(resized, axis=-1) - chosen
    return loss, jnp.argmax(resized, axis=-1) == target
