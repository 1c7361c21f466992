"""Judging statements about two images: cross-entropy of false and true (NLVR2)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.reasoner import IMAGES, Reasoner
from vlbeit_jax.objectives.base import (
    ROW,
    Context,
    Objective,
    Term,
    Tree,
    Variables,
    uniform_per_row,
)
from vlbeit_jax.objectives.supervised import soft_cross_entropy
from vlbeit_jax.shapes import Array, Float

STATEMENT = "statement"


@dataclasses.dataclass(frozen=True)
class Judging(Objective):
    """Cross-entropy of the truth; one term, ``statement``.

    A batch holds ``image``, ``second_image``, ``text`` and ``truth``, which is 0 or 1.

    Attributes:
      network: gives logits.
    """

    network: Reasoner

    def weights(self, batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
        """Returns the number of rows that count."""
        return {STATEMENT: batch["weight"].sum()}

    def __call__(
        self, variables: Variables, batch: dict[str, Array], ctx: Context
    ) -> tuple[dict[str, Term], Tree]:
        """Returns the loss, and how many rows are right; a tie is wrong, as in evaluation.

        Drop path is drawn for each image of a row.
        """
        config, drop_path = self.network.config, None
        if config.drop_path:
            drop_path = uniform_per_row(ctx.key, batch[ROW], IMAGES, config.depth, 2)
        logits = self.logits(variables.params, batch, drop_path)
        truth, weight = batch["truth"], batch["weight"]
        loss = soft_cross_entropy(logits, jax.nn.one_hot(truth, logits.shape[1]))
        margin = logits[:, 1] - logits[:, 0]
        right = jnp.where(truth == 1, margin > 0, margin < 0)
        sums = {"accuracy": (right * weight).sum()}
        return {STATEMENT: Term((loss * weight).sum(), weight.sum(), sums)}, {}

    def logits(
        self, params: Tree, batch: dict[str, Array], drop_path: Array | None = None
    ) -> Float[Array, "B 2"]:
        """Returns logits of false and true."""
        inputs = Inputs(
            image=batch["image"], second_image=batch["second_image"], text=batch["text"]
        )
        logits: Any = self.network.apply({"params": params}, inputs, drop_path)
        return logits
