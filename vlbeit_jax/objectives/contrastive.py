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


class Rows(NamedTuple):
    """What the loss needs of some rows of a batch.

    Attributes:
      image: unit vectors.
      text: unit vectors.
      picture: identifies the picture of each row.
      weight: of each row.
    """

    image: Float[Array, "B E"]
    text: Float[Array, "B E"]
    picture: UInt[Array, " B"]
    weight: Float[Array, " B"]


class RowLosses(NamedTuple):
    """What a contrastive loss is for each row, not yet multiplied by the row's weight.

    Attributes:
      loss: of one direction, or the mean of both; nats.
      correct: 1 if the best partner is a right one, else 0; for both directions, the mean.
    """

    loss: Float[Array, " B"]
    correct: Float[Array, " B"]


def clip_losses(own: Rows, every: Rows, log_scale: Float[Array, ""]) -> RowLosses:
    """Returns the loss of some rows of a batch.

    Each image is classified among the texts of all rows, and each text among all images. Rows of
    the same picture are right answers for each other, all in equal shares (ALBEF, arXiv
    2107.07651); without such rows this is CLIP's loss. Rows of weight 0 are no answers.

    Args:
      own: the rows whose loss is returned.
      every: all rows of the batch.
      log_scale: logarithm of what similarities are multiplied by.
    """
    counts = every.weight > 0
    right = (own.picture[:, None] == every.picture) & (own.weight > 0)[:, None] & counts

    def classified(queries: Float[Array, "B E"], answers: Float[Array, "C E"]) -> RowLosses:
        cosines = jnp.einsum("ie,je->ij", queries, answers, precision=jax.lax.Precision.HIGHEST)
        return _direction(jnp.exp(log_scale) * cosines, right, counts)

    texts, images = classified(own.image, every.text), classified(own.text, every.image)
    return RowLosses((texts.loss + images.loss) / 2, (texts.correct + images.correct) / 2)


def _direction(
    logits: Float[Array, "B C"], right: Bool[Array, "B C"], counts: Bool[Array, " C"]
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


def _of_all_devices(rows: Rows, axes: tuple[str, ...]) -> Rows:
    """Returns the rows of all devices along some mesh axes."""
    if not axes:
        return rows
    return jax.tree.map(lambda own: jax.lax.all_gather(own, axes, tiled=True), rows)


def _of_own_rows(gradients: Tree, axes: tuple[str, ...]) -> Tree:
    """Sums what all devices found for all rows, and returns the part of this device's rows."""
    if not axes:
        return gradients
    return jax.tree.map(
        lambda gradient: jax.lax.psum_scatter(gradient, axes, scatter_dimension=0, tiled=True),
        gradients,
    )


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
        axes: tuple[str, ...] = (),
    ) -> dict[str, Array]:
        """Returns the entries that ``prepare`` adds, for rows whose embeddings are known.

        Args:
          variables: of the network.
          batch: the rows.
          image: their embeddings.
          text: their embeddings.
          axes: mesh axes that the batch is split over, if these are the rows of one device. Each
            device then compares its own rows with all others, so that together they do it once.
        """
        own = Rows(image, text, batch["picture"], batch["weight"])
        every = _of_all_devices(own, axes)
        log_scale, limited = variables.params["head"]["logit_scale"], self.log_scale(variables)

        def total(vectors: tuple, others: tuple, log_scale: Array) -> tuple[Array, RowLosses]:
            image, text = vectors
            own_rows = own._replace(image=image, text=text)
            image, text = others
            rows = clip_losses(own_rows, every._replace(image=image, text=text), log_scale)
            # Rows of weight 0 have no right answer; whatever their loss is, it must not count.
            return jnp.where(own.weight > 0, rows.loss * own.weight, 0).sum(), rows

        # As a question and as an answer, a row's embedding has one derivative each.
        gradient = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
        given = (own.image, own.text), (every.image, every.text), limited
        (_, rows), (asked, answered, d_scale) = gradient(*given)
        home = _of_own_rows(answered, axes)
        d_image, d_text = (one + other for one, other in zip(asked, home, strict=True))
        d_scale = jax.lax.psum(d_scale, axes) if axes else d_scale
        # Above the limit, the gradient never raises the scale.
        d_scale = jnp.where(log_scale > limited, jnp.maximum(d_scale, 0), d_scale)
        return {
            "row_loss": jnp.where(own.weight > 0, rows.loss * own.weight, 0),
            "row_correct": rows.correct * own.weight,
            "row_scale": jnp.exp(limited) * own.weight,
            "d_image": d_image,
            "d_text": d_text,
            "d_scale": jnp.full(len(own.weight), d_scale / len(every.weight)),
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
            fixed = jax.lax.stop_gradient((variables, batch, image, text))
            batch = batch | self.contrast(*fixed, ctx.row_axes)
        linear = (image * batch["d_image"]).sum() + (text * batch["d_text"]).sum()
        linear += (variables.params["head"]["logit_scale"] * batch["d_scale"]).sum()
        # The difference is exactly 0. Its terms may be much larger than the loss, which would lose
        # digits if it were added to one of them first.
        loss = batch["row_loss"].sum() + (linear - jax.lax.stop_gradient(linear))
        sums = {"accuracy": batch["row_correct"].sum(), "scale": batch["row_scale"].sum()}
        return {CONTRAST: Term(loss, batch["weight"].sum(), sums)}, {}

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
