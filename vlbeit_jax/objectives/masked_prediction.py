"""Masked prediction: one objective for images, texts and pairs (VL-BEiT).

The streams differ only in what their batches hold. Every modality present is corrupted at its
masked positions and predicted there: visual tokens for patches, word pieces for texts.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.visual_tokenizer import Tokenizer, encode
from vlbeit_jax.models.vlbeit import VLBEiT
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
from vlbeit_jax.types import Modality

# The name of each loss, by stream and modality. All have weight 1 (VL-BEiT).
TERMS: Mapping[str, Mapping[Modality, str]] = {
    "image": {Modality.VISION: "mim"},
    "text": {Modality.LANGUAGE: "mlm"},
    "pair": {Modality.VISION: "mvlm_image", Modality.LANGUAGE: "mvlm_text"},
}
TERM_NAMES = tuple(name for terms in TERMS.values() for name in terms.values())
LARGEST_COUNT = 2**30  # Of a target; two of them still fit into an int32.


def model_inputs(batch: Mapping[str, Any]) -> Inputs:
    """Returns the part of a batch that the network sees."""
    names = ("image", "masked_patches", "text", "text_masked")
    return Inputs(**{name: jnp.asarray(batch[name]) for name in names if name in batch})


@dataclasses.dataclass(frozen=True)
class MaskedPrediction(Objective):
    """Cross-entropy at the masked positions of one stream.

    ``model_state`` counts, per loss, how often each target came up so far. A predictor that always
    answers with the most frequent one is the unigram baseline that is logged beside the accuracy.
    """

    stream: str
    model: VLBEiT
    tokenizer: Tokenizer

    def init_model_state(self) -> dict[str, Int[Array, " V"]]:
        """Returns counts of 0."""
        return {
            name: jnp.zeros(self.vocabulary(modality), jnp.int32)
            for modality, name in TERMS[self.stream].items()
        }

    def weights(self, batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
        """Returns the number of masked positions of every loss; padding rows do not count."""
        return {
            name: self.position_weights(batch, modality).sum()
            for modality, name in TERMS[self.stream].items()
        }

    def position_weights(self, batch: dict[str, Array], modality: Modality) -> Float[Array, "B M"]:
        """Returns 1 for a masked position that counts, 0 for an unused slot or a padding row."""
        row = batch["weight"][:, None]
        if modality is Modality.LANGUAGE:
            return batch["text_weights"] * row
        return jnp.broadcast_to(row, batch["masked_patches"].shape)

    def targets(
        self, frozen: Tree, batch: dict[str, Array], modality: Modality
    ) -> Int[Array, "B M"]:
        """Returns what has to be predicted at the masked positions."""
        if modality is Modality.LANGUAGE:
            return batch["text_targets"]
        if "image_targets" in batch:  # Cached on disk.
            return batch["image_targets"]
        codes = encode(self.tokenizer, frozen, batch["image"])
        return jnp.take_along_axis(codes, batch["masked_patches"], axis=1)

    def __call__(
        self, variables: Variables, batch: dict[str, Array], ctx: Context
    ) -> tuple[dict[str, Term], Tree]:
        """Returns the stream's losses, and counts of their targets."""
        params, model_state, frozen = variables
        config, drop_path = self.model.config, None
        if config.drop_path:
            drop_path = uniform_per_row(ctx.key, batch[ROW], config.depth, 2)
        targets = self._all_targets(frozen, batch)
        inputs = model_inputs(batch)
        predictions: Any = self.model.apply({"params": params}, inputs, targets, drop_path)
        terms, counts = {}, {}
        for modality, name in TERMS[self.stream].items():
            weights = self.position_weights(batch, modality)
            loss, correct = predictions[modality]
            frequent = jnp.argmax(model_state[name]) == targets[modality]
            terms[name] = Term(
                loss=(loss * weights).sum(),
                weight=weights.sum(),
                sums={
                    "accuracy": (correct * weights).sum(),
                    "unigram": (frequent * weights).sum(),
                },
            )
            zeros, new = jnp.zeros_like(model_state[name]), weights.astype(jnp.int32)
            counts[name] = zeros.at[targets[modality]].add(new)
        return terms, jax.lax.stop_gradient(counts)

    def update(self, model_state: Tree, statistics: Tree) -> tuple[Tree, dict[str, Array]]:
        """Adds the counts of a step.

        All counts of a loss are halved before one could overflow, which keeps their order.
        """

        def add(before: Array, new: Array) -> Array:
            total = before + new
            return jnp.where(total.max() > LARGEST_COUNT, total // 2, total)

        return jax.tree.map(add, model_state, statistics), {}

    def score(
        self, params: Tree, frozen: Tree, batch: dict[str, Array]
    ) -> dict[str, dict[str, Array]]:
        """Returns, per loss and row, correct predictions, loss and weight; and counts of targets.

        Nothing is dropped: this is for evaluation.
        """
        targets = self._all_targets(frozen, batch)
        inputs = model_inputs(batch)
        predictions: Any = self.model.apply({"params": params}, inputs, targets)
        scores = {}
        for modality, name in TERMS[self.stream].items():
            weights = self.position_weights(batch, modality)
            loss, correct = predictions[modality]
            zeros = jnp.zeros(self.vocabulary(modality), jnp.float32)
            scores[name] = {
                "correct": (correct * weights).sum(axis=1),
                "loss": (loss * weights).sum(axis=1),
                "weight": weights.sum(axis=1),
                "targets": zeros.at[targets[modality]].add(weights),
            }
        return scores

    def vocabulary(self, modality: Modality) -> int:
        """Returns the number of classes."""
        config = self.model.config
        return config.codes if modality is Modality.VISION else config.vocabulary

    def _all_targets(
        self, frozen: Tree, batch: dict[str, Array]
    ) -> dict[Modality, Int[Array, "B M"]]:
        return {modality: self.targets(frozen, batch, modality) for modality in TERMS[self.stream]}
