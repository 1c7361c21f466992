"""Classification: cross-entropy with soft targets."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.classifier import Classifier
from vlbeit_jax.objectives.base import (
    ROW,
    Context,
    Objective,
    PerRow,
    Term,
    Tree,
    Variables,
    uniform_per_row,
)
from vlbeit_jax.objectives.mixing import PARTNER, Mixing, erased, mixed
from vlbeit_jax.ops.patches import normalise
from vlbeit_jax.shapes import Array, Float, Int

CLASS = "class"


@dataclasses.dataclass(frozen=True)
class Supervised(Objective):
    """Cross-entropy of the classes; one term, ``class``.

    A batch holds ``label``, and ``text`` or ``image``; with the image, ``erase`` if parts of it are
    to be erased.

    Attributes:
      network: gives logits.
      smoothing: share of each target that is spread over all classes.
      mixing: of images.
    """

    network: Classifier
    smoothing: float = 0.0
    mixing: Mixing = Mixing()

    def weights(self, batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
        """Returns the number of rows that count."""
        return {CLASS: batch["weight"].sum()}

    def prepare(
        self, variables: Variables, batch: dict[str, Array], ctx: Context, per_row: PerRow
    ) -> dict[str, Array]:
        """Gives each row its partner, if images are mixed."""
        return self.mixing.prepare(batch, ctx.key) if self.mixing else batch

    def __call__(
        self, variables: Variables, batch: dict[str, Array], ctx: Context
    ) -> tuple[dict[str, Term], Tree]:
        """Returns the loss. A mixed row counts as right if the heavier one of its labels is."""
        config, drop_path = self.network.config, None
        if config.drop_path:
            drop_path = uniform_per_row(ctx.key, batch[ROW], config.depth, 2)
        logits = self._logits(variables.params, self._inputs(batch, ctx.key), drop_path)
        own = smoothed(batch["label"], self.network.classes, self.smoothing)
        targets, main = own, batch["label"]
        if self.mixing:
            other = batch[PARTNER + "label"]
            share = batch["mix_share"][:, None]
            targets = share * own + (1 - share) * smoothed(
                other, self.network.classes, self.smoothing
            )
            main = jnp.where(batch["mix_share"] >= 0.5, batch["label"], other)
        loss, weight = soft_cross_entropy(logits, targets), batch["weight"]
        right = (jnp.argmax(logits, axis=-1) == main) * weight
        return {CLASS: Term((loss * weight).sum(), weight.sum(), {"accuracy": right.sum()})}, {}

    def logits(self, params: Tree, batch: dict[str, Array]) -> Float[Array, "B C"]:
        """Returns the logits of images or texts as they are, for evaluation."""
        return self._logits(params, Inputs(image=batch.get("image"), text=batch.get("text")), None)

    def _logits(self, params: Tree, inputs: Inputs, drop_path: Any) -> Float[Array, "B C"]:
        logits: Any = self.network.apply({"params": params}, inputs, drop_path)
        return logits

    def _inputs(self, batch: dict[str, Array], key: Array) -> Inputs:
        """Returns texts, or images after erasing and mixing."""
        if "text" in batch:
            return Inputs(text=batch["text"])
        image = _pixels(batch, "", key)
        if self.mixing:
            image = mixed(image, _pixels(batch, PARTNER, key), batch)
        return Inputs(image=image)


def _pixels(batch: dict[str, Array], prefix: str, key: Array) -> Float[Array, "B height width 3"]:
    """Returns the normalised pixels of the rows or of their partners."""
    image = batch[prefix + "image"]
    if "erase" not in batch:
        return normalise(image)
    return erased(image, batch[prefix + "erase"], key, batch[prefix + ROW])


def smoothed(labels: Int[Array, " B"], classes: int, smoothing: float) -> Float[Array, "B C"]:
    """Returns targets: 1 - smoothing for the label, and smoothing spread over all classes."""
    return jax.nn.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def soft_cross_entropy(
    logits: Float[Array, "B C"], targets: Float[Array, "B C"]
) -> Float[Array, " B"]:
    """Returns the cross-entropy of each row with its distribution over classes, in nats."""
    return -(targets * jax.nn.log_softmax(logits.astype(jnp.float32))).sum(axis=-1)
