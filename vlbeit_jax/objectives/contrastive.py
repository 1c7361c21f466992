"""Contrastive loss between images and texts over all rows of a batch (CLIP, arXiv 2103.00020).

It is exact on any mesh and for any number of microbatches. Once the embeddings of all rows are
known, so are the loss of the whole batch and its derivatives by them. Each row's loss is then a
linear function of its own embeddings with these derivatives: a plain sum over rows.

A device that takes its rows at once gets the other devices' embeddings and needs no more. With
microbatches, a first pass without gradient embeds all rows. The price is one more forward pass.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.retrieval import DualEncoder
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
from vlbeit_jax.shapes import Array, Bool, Float, Int, UInt

CONTRAST = "contrast"
LOWEST = -1e30  # Logit of a row that does not count.


class RowLosses(NamedTuple):
    """What a contrastive loss is for each row, not yet multiplied by the row's weight.

    Attributes:
      loss: of one direction, or the mean of both; nats.
      correct: 1 if the best partner is a right one, else 0; for both directions, the mean.
    """

    loss: Float[Array, " B"]
    correct: Float[Array, " B"]


def clip_losses(
    image: Float[Array, "B E"],
    text: Float[Array, "B E"],
    log_scale: Float[Array, ""],
    picture: UInt[Array, " B"],
    weight: Float[Array, " B"],
) -> RowLosses:
    """Returns the loss of every row of a whole batch.

    Each image is classified among all texts and each text among all images. Rows of the same
    picture are right answers for each other, all in equal shares (ALBEF, arXiv 2107.07651); without
    such rows this is CLIP's loss. Rows of weight 0 are no answers.

    Args:
      image: unit vectors.
      text: unit vectors.
      log_scale: logarithm of what similarities are multiplied by.
      picture: identifies the picture of each row.
      weight: of each row.
    """
    counts = weight > 0
    similar = jnp.einsum("ie,je->ij", image, text, precision=jax.lax.Precision.HIGHEST)
    logits = jnp.exp(log_scale) * similar
    right = (picture[:, None] == picture) & counts[:, None] & counts
    texts = _direction(logits, right, counts)
    images = _direction(logits.T, right, counts)
    return RowLosses((texts.loss + images.loss) / 2, (texts.correct + images.correct) / 2)


def _direction(
    logits: Float[Array, "B B"], right: Bool[Array, "B B"], counts: Bool[Array, " B"]
) -> RowLosses:
    """Returns loss and correctness of classifying each row among all columns."""
    # Finite, so that the derivative exists even if no row counts.
    logits = jnp.where(counts, logits, LOWEST)
    shares = right / jnp.maximum(right.sum(axis=1, keepdims=True), 1)
    own = jnp.where(right, shares * logits, 0).sum(axis=1)
    best = jnp.where(right, logits, -jnp.inf).max(axis=1)
    others = jnp.where(right, -jnp.inf, logits).max(axis=1)
    # A right and a wrong answer that are equally good count as wrong.
    correct = (best > others).astype(jnp.float32)
    return RowLosses(jax.nn.logsumexp(logits, axis=1) - own, correct)


@dataclasses.dataclass(frozen=True)
class Contrastive(Objective):
    """Contrastive loss of the images and texts of a batch, in both directions.

    Attributes:
      network: embeds images and texts.
      max_scale: what similarities are multiplied by at most; CLIP's is 100. 0: without limit, as in
        BEiT-3.
    """

    network: DualEncoder
    max_scale: float = 100.0

    def weights(self, batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
        """Returns the number of rows that count."""
        return {CONTRAST: batch["weight"].sum()}

    def embed(
        self, variables: Variables, rows: dict[str, Array], ctx: Context
    ) -> tuple[Float[Array, "B E"], Float[Array, "B E"]]:
        """Returns unit vectors of images and texts. The same rows and context: the same draws."""
        draws = self._draws(ctx.key, rows[ROW], 2)
        image = self._apply(variables, "embed_image", Inputs(image=rows["image"]), draws[0])
        text = self._apply(variables, "embed_text", Inputs(text=rows["text"]), draws[1])
        return image, text

    def log_scale(self, variables: Variables) -> Float[Array, ""]:
        """Returns the logarithm of what similarities are multiplied by, within its limit."""
        limit = math.log(self.max_scale) if self.max_scale else math.inf
        return jnp.minimum(variables.params["head"]["logit_scale"], limit)

    def prepare(
        self, variables: Variables, batch: dict[str, Array], ctx: Context, per_row: PerRow
    ) -> dict[str, Array]:
        """Adds the loss of each row, and the batch's derivatives by its embeddings.

        Without microbatches it adds nothing; ``__call__`` can then do the same at a lower price.
        """
        if ctx.microbatches == 1:
            return batch
        image, text = per_row(self.embed, batch)
        return batch | self.contrast(variables, batch, image, text)

    def contrast(
        self,
        variables: Variables,
        batch: dict[str, Array],
        image: Float[Array, "B E"],
        text: Float[Array, "B E"],
    ) -> dict[str, Array]:
        """Returns the entries that ``prepare`` adds, from the embeddings of all rows."""
        picture, weight = batch["picture"], batch["weight"]
        log_scale = variables.params["head"]["logit_scale"]
        limited = self.log_scale(variables)

        def total(image: Array, text: Array, log_scale: Array) -> tuple[Array, RowLosses]:
            rows = clip_losses(image, text, log_scale, picture, weight)
            # Rows of weight 0 have no right answer; whatever their loss is, it must not count.
            return jnp.where(weight > 0, rows.loss * weight, 0).sum(), rows

        gradient = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
        (_, rows), (d_image, d_text, d_scale) = gradient(image, text, limited)
        # Above the limit, the gradient never raises the scale.
        d_scale = jnp.where(log_scale > limited, jnp.maximum(d_scale, 0), d_scale)
        return {
            "row_loss": jnp.where(weight > 0, rows.loss * weight, 0),
            "row_correct": rows.correct * weight,
            "row_scale": jnp.exp(limited) * weight,
            "d_image": d_image,
            "d_text": d_text,
            "d_scale": jnp.full(len(weight), d_scale / len(weight)),
        }

    def __call__(
        self, variables: Variables, batch: dict[str, Array], ctx: Context
    ) -> tuple[dict[str, Term], Tree]:
        """Returns the loss of prepared rows.

        Its gradient is that of a linear function of the embeddings. If ``prepare`` has embedded the
        rows before, these are the same embeddings, because their draws are the same.
        """
        image, text = self.embed(variables, batch, ctx)
        if "row_loss" not in batch:
            batch = batch | self._of_own_rows(variables, batch, image, text, ctx.row_axes)
        linear = (image * batch["d_image"]).sum() + (text * batch["d_text"]).sum()
        linear += (variables.params["head"]["logit_scale"] * batch["d_scale"]).sum()
        # The difference is exactly 0. Its terms may be much larger than the loss, which would lose
        # digits if it were added to one of them first.
        loss = batch["row_loss"].sum() + (linear - jax.lax.stop_gradient(linear))
        sums = {"accuracy": batch["row_correct"].sum(), "scale": batch["row_scale"].sum()}
        return {CONTRAST: Term(loss, batch["weight"].sum(), sums)}, {}

    def _of_own_rows(
        self,
        variables: Variables,
        batch: dict[str, Array],
        image: Float[Array, "B E"],
        text: Float[Array, "B E"],
        axes: tuple[str, ...],
    ) -> dict[str, Array]:
        """Returns the entries of ``contrast`` for this device's rows, among those of all devices.

        Args:
          variables: of the network; no gradient flows through any of these arguments.
          batch: this device's rows.
          image: embeddings of these rows.
          text: the same.
          axes: the mesh axes that rows are split over.
        """
        variables, rows, image, text = jax.lax.stop_gradient((variables, batch, image, text))
        if not axes:
            return self.contrast(variables, rows, image, text)
        needed = {name: rows[name] for name in ("picture", "weight")}
        # Every device computes the whole matrix of similarities: a few operations per row and
        # feature, against millions in the network.
        needed, image, text = jax.tree.map(
            lambda own: jax.lax.all_gather(own, axes, tiled=True), (needed, image, text)
        )
        found = self.contrast(variables, needed, image, text)
        count = len(rows["weight"])
        first = jax.lax.axis_index(axes) * count
        return {
            name: jax.lax.dynamic_slice_in_dim(value, first, count) for name, value in found.items()
        }

    def _apply(self, variables: Variables, method: str, inputs: Inputs, draws: Array | None) -> Any:
        return self.network.apply({"params": variables.params}, inputs, draws, method=method)

    def _draws(
        self, key: Array, rows: Int[Array, " B"], passes: int
    ) -> tuple[Float[Array, "B Z 2"] | None, ...]:
        """Returns draws of drop path for several passes of each row; None if nothing drops."""
        config = self.network.config
        if not config.drop_path:
            return (None,) * passes
        draws = uniform_per_row(key, rows, passes, config.depth, 2)
        return tuple(draws[:, index] for index in range(passes))
