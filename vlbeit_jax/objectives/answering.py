"""Question answering as a choice among a fixed list of answers (BEiT-3, VLMo)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.vqa import VQA
from vlbeit_jax.objectives.base import (
    ROW,
    Context,
    Objective,
    Term,
    Tree,
    Variables,
    uniform_per_row,
)
from vlbeit_jax.shapes import Array, Float, Int

ANSWER = "answer"


def dense_targets(
    answers: Int[Array, "B S"], scores: Float[Array, "B S"], count: int
) -> Float[Array, "B C"]:
    """Returns the score of every answer of the list.

    Args:
      answers: numbers of answers with a score, in any order.
      scores: of each; 0 in unused slots, whatever answer they name.
      count: length of the list.
    """
    rows = jnp.arange(len(answers))[:, None]
    return jnp.zeros((len(answers), count)).at[rows, answers].add(scores)


@dataclasses.dataclass(frozen=True)
class Answering(Objective):
    """Binary cross-entropy of every answer with its soft score, summed over the answers.

    The anchors average over the answers and multiply by their number. Summing says the same. A mean
    would be thousands of times smaller, so that clipping by norm never acts and AdamW's epsilon
    does.

    A question without any answer of the list has weight 0 in training: it has no target.

    Attributes:
      network: gives logits.
    """

    network: VQA

    def weights(self, batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
        """Returns the number of questions that count."""
        return {ANSWER: self._row_weights(batch).sum()}

    def __call__(
        self, variables: Variables, batch: dict[str, Array], ctx: Context
    ) -> tuple[dict[str, Term], Tree]:
        """Returns the loss, with the score of the most likely answers beside it."""
        config, drop_path = self.network.config, None
        if config.drop_path:
            drop_path = uniform_per_row(ctx.key, batch[ROW], config.depth, 2)
        logits = self.logits(variables.params, batch, drop_path)
        targets = dense_targets(batch["answers"], batch["scores"], self.network.answers)
        loss = sigmoid_cross_entropy(logits, targets).sum(axis=1)
        best = jnp.take_along_axis(targets, jnp.argmax(logits, axis=1)[:, None], axis=1)[:, 0]
        weight = self._row_weights(batch)
        sums = {"accuracy": (best * weight).sum()}
        return {ANSWER: Term((loss * weight).sum(), weight.sum(), sums)}, {}

    def logits(
        self, params: Tree, batch: dict[str, Array], drop_path: Array | None = None
    ) -> Float[Array, "B C"]:
        """Returns logits of all answers."""
        inputs = Inputs(image=batch["image"], text=batch["text"])
        logits: Any = self.network.apply({"params": params}, inputs, drop_path)
        return logits

    def _row_weights(self, batch: dict[str, Array]) -> Float[Array, " B"]:
        return batch["weight"] * (batch["scores"].max(axis=1) > 0)


def sigmoid_cross_entropy(
    logits: Float[Array, "B C"], targets: Float[Array, "B C"]
) -> Float[Array, "B C"]:
    """Returns the cross-entropy of each probability ``sigmoid(logit)`` with its target, in nats."""
    return jax.nn.softplus(logits) - targets * logits
