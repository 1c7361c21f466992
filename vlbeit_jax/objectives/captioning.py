"""Captions as masked prediction from left to right (BEiT-3)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.captioner import Captioner
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
from vlbeit_jax.ops.losses import Prediction
from vlbeit_jax.shapes import Array, Float

CAPTION = "caption"
KEPT = "kept"  # The entry of a batch with the weight of each position that is left.


@dataclasses.dataclass(frozen=True)
class Captioning(Objective):
    """Cross-entropy of the masked pieces of captions.

    Attributes:
      network: predicts pieces.
      smoothing: share of a target that is spread over all other pieces.
      drop_worst: share of a step's positions, those with the largest losses, that is left out:
        captions that do not fit their image. It costs one more forward pass.
      drop_worst_after: steps after which they are left out. Before, a large loss says that the
        network has not learnt yet.
    """

    network: Captioner
    smoothing: float = 0.1
    drop_worst: float = 0.0
    drop_worst_after: int = 0

    def init_model_state(self) -> dict[str, Array]:
        """Returns the number of steps so far, if positions will be left out."""
        return {"steps": jnp.int32(0)} if self.drop_worst else {}

    def weights(self, batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
        """Returns the number of masked positions."""
        return {CAPTION: _position_weights(batch).sum()}

    def prepare(
        self, variables: Variables, batch: dict[str, Array], ctx: Context, per_row: PerRow
    ) -> dict[str, Array]:
        """Gives each position of the whole batch its weight, if some are left out.

        Those that are left weigh so much more that all of them weigh as much as before.
        """
        if not self.drop_worst:
            return batch
        weights = _position_weights(batch)

        def kept() -> Float[Array, "B M"]:
            def losses(variables: Variables, rows: Any, ctx: Context) -> Float[Array, "B M"]:
                return self._prediction(variables.params, rows, ctx).loss

            losses_of_all = jnp.where(weights > 0, per_row(losses, batch), jnp.inf)
            order = jnp.argsort(jnp.argsort(losses_of_all.ravel())).reshape(weights.shape)
            total = weights.sum()
            left = jnp.maximum(jnp.floor(total * (1 - self.drop_worst)), 1)
            return (order < left) * (total / left)

        late = variables.model_state["steps"] >= self.drop_worst_after
        return {**batch, KEPT: jax.lax.cond(late, kept, lambda: jnp.ones_like(weights))}

    def __call__(
        self, variables: Variables, batch: dict[str, Array], ctx: Context
    ) -> tuple[dict[str, Term], Tree]:
        """Returns the loss. The accuracy is that of all positions."""
        weights = _position_weights(batch)
        loss, correct = self._prediction(variables.params, batch, ctx)
        total = (loss * weights * batch.get(KEPT, 1.0)).sum()
        sums = {"accuracy": (correct * weights).sum()}
        return {CAPTION: Term(total, weights.sum(), sums)}, {}

    def update(self, model_state: Tree, statistics: Tree) -> tuple[Tree, dict[str, Array]]:
        """Counts the step."""
        return {name: count + 1 for name, count in model_state.items()}, {}

    def _prediction(self, params: Tree, batch: dict[str, Array], ctx: Context) -> Prediction:
        config, drop_path = self.network.config, None
        if config.drop_path:
            drop_path = uniform_per_row(ctx.key, batch[ROW], config.depth, 2)
        names = ("image", "text", "text_masked")
        prediction: Any = self.network.apply(
            {"params": params},
            Inputs(**{name: batch[name] for name in names}),
            batch["text_targets"],
            drop_path,
            self.smoothing,
            method="predict",
        )
        return prediction


def _position_weights(batch: dict[str, Array]) -> Float[Array, "B M"]:
    """Returns 1 for a masked position that counts, 0 for an unused slot or a padding row."""
    return batch["text_weights"] * batch["weight"][:, None]
