"""Image-text matching with hard negatives, beside the contrastive loss (ALBEF, arXiv 2107.07651).

A network reads image and text in one sequence and says whether they belong together. For each row
there are three pairs: its own, its image with a wrong text, and its text with a wrong image. The
more similar two embeddings are, the more often one row is drawn as the other's wrong partner.
"""

import dataclasses

import jax
import jax.numpy as jnp

from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.objectives.base import (
    ROW,
    Context,
    PerRow,
    Term,
    Tree,
    Variables,
    uniform_per_row,
)
from vlbeit_jax.objectives.contrastive import Contrastive
from vlbeit_jax.ops.losses import cross_entropy
from vlbeit_jax.shapes import Array, Bool, Float, Int

MATCHING = "matching"
EASIEST = 1e-4  # Added to every probability, so that any wrong partner can be drawn (ALBEF).
PASSES = 3  # Own pair, wrong text, wrong image.
# Folded into the key of a step, as ``mixing`` does. The embeddings use the key itself.
_NEGATIVES, _TOGETHER = 2**31 - 3, 2**31 - 4


@dataclasses.dataclass(frozen=True)
class ContrastiveAndMatching(Contrastive):
    """The contrastive loss, and cross-entropy of "these belong together" over three pairs a row.

    Attributes:
      negatives_among: rows of a group; wrong partners are drawn within it. It divides the batch
        size. 0: the whole batch. Devices then exchange the images of the whole batch; a group that
        lies on one device is not exchanged.
    """

    negatives_among: int = 0

    def weights(self, batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
        """Returns the number of rows and of pairs that count."""
        return super().weights(batch) | {MATCHING: self._pair_weights(batch).sum()}

    def prepare(
        self, variables: Variables, batch: dict[str, Array], ctx: Context, per_row: PerRow
    ) -> dict[str, Array]:
        """Adds what the contrastive loss needs, and wrong partners.

        Both need the embeddings first, so that this pass is there even without microbatches.
        """
        image, text = per_row(self.embed, batch)
        entries = self.contrast(variables, batch, image, text)
        scale = jnp.exp(self.log_scale(variables))
        group = self._group(len(image))
        images, texts = _by_group(scale * image, group), _by_group(text, group)
        similar = jnp.einsum("gie,gje->gij", images, texts, precision=jax.lax.Precision.HIGHEST)
        allowed = self._allowed(batch)
        key = jax.random.fold_in(ctx.key, _NEGATIVES)
        draws = uniform_per_row(key, batch[ROW], 2, group)
        wrong_text = _draw(similar, allowed, _by_group(draws[:, 0], group))
        wrong_image = _draw(similar.transpose(0, 2, 1), allowed, _by_group(draws[:, 1], group))
        return (
            batch
            | entries
            | {
                "wrong_text": _take(batch["text"], wrong_text),
                "wrong_image": _take(batch["image"], wrong_image),
                "pair_weight": self._pair_weights(batch),
            }
        )

    def __call__(
        self, variables: Variables, batch: dict[str, Array], ctx: Context
    ) -> tuple[dict[str, Term], Tree]:
        """Returns both losses of prepared rows."""
        terms, statistics = super().__call__(variables, batch, ctx)
        image, text = batch["image"], batch["text"]
        key = jax.random.fold_in(ctx.key, _TOGETHER)
        draws = self._draws(key, batch[ROW], PASSES)
        inputs = Inputs(
            image=jnp.concatenate([image, image, batch["wrong_image"]]),
            text=jnp.concatenate([text, batch["wrong_text"], text]),
        )
        dropped = [each for each in draws if each is not None]
        together = jnp.concatenate(dropped) if dropped else None
        logits = self._apply(variables, "match", inputs, together)
        rows = len(image)
        targets = (jnp.arange(PASSES * rows) < rows).astype(jnp.int32)
        loss, correct = cross_entropy(logits[:, None], targets[:, None])
        weight = batch["pair_weight"].T.reshape(-1)
        terms[MATCHING] = Term(
            (loss[:, 0] * weight).sum(),
            weight.sum(),
            {"accuracy": (correct[:, 0] * weight).sum()},
        )
        return terms, statistics

    def _group(self, rows: int) -> int:
        group = self.negatives_among or rows
        assert rows % group == 0, f"{rows} rows are no multiple of negatives_among={group}"
        return group

    def _allowed(self, batch: dict[str, Array]) -> Bool[Array, "groups K K"]:
        """Returns which rows of a group may be a wrong partner of which: of another picture."""
        group = self._group(len(batch["weight"]))
        picture, counts = (_by_group(batch[name], group) for name in ("picture", "weight"))
        return (picture[:, :, None] != picture[:, None]) & (counts[:, None] > 0)

    def _pair_weights(self, batch: dict[str, Array]) -> Float[Array, "B 3"]:
        """Returns the weights of a row's pairs; wrong pairs count only where there is a partner.

        They depend on the data alone. A batch of one row, or a group of one picture, has no wrong
        partners.
        """
        there = self._allowed(batch).any(axis=2).reshape(-1)
        wrong = batch["weight"] * there
        return jnp.stack([batch["weight"], wrong, wrong], axis=1)


def _by_group(rows: Array, group: int) -> Array:
    """Splits rows into groups of consecutive ones, along a new first axis."""
    return rows.reshape(rows.shape[0] // group, group, *rows.shape[1:])


def _draw(
    logits: Float[Array, "groups K K"],
    allowed: Bool[Array, "groups K K"],
    uniform: Float[Array, "groups K K"],
) -> Int[Array, "groups K"]:
    """Draws a column for each row, with the softmax of its logits over the allowed columns.

    The largest of the log-probabilities plus Gumbel noise is such a draw. If no column is allowed,
    it is column 0.
    """
    shares = jax.nn.softmax(jnp.where(allowed, logits, -1e30), axis=2)
    noise = -jnp.log(-jnp.log(jnp.clip(uniform, 1e-7, 1 - 1e-7)))
    return jnp.argmax(jnp.where(allowed, jnp.log(shares + EASIEST) + noise, -jnp.inf), axis=2)


def _take(rows: Array, chosen: Int[Array, "groups K"]) -> Array:
    """Returns the chosen row of the same group, for each row."""
    groups = _by_group(rows, chosen.shape[1])
    return jax.vmap(lambda rows, chosen: rows[chosen])(groups, chosen).reshape(rows.shape)
