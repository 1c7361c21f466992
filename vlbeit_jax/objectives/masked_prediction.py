"""Masked prediction: one objective for images, texts and pairs (spec section 2).

The streams differ only in what their batches hold. Every modality present is corrupted at its masked positions and predicted
there: visual tokens for patches, word pieces for texts.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vlbeit_jax.models.layers import matmul_dtype, run
from vlbeit_jax.models.visual_tokenizer import Tokenizer, encode
from vlbeit_jax.models.vlbeit import Inputs, VLBEiT
from vlbeit_jax.objectives.base import ROW, Crossing, Term, Tree, crossing, draws_of_rows
from vlbeit_jax.ops.losses import Grades, grade
from vlbeit_jax.ops.vocabulary import grade_parts
from vlbeit_jax.shapes import Array, Float, Int
from vlbeit_jax.types import Modality, Stream

# The name of each loss: by stream and modality (spec section 0, decision 7; weights are all 1).
TERMS = {
    (Stream.IMAGE, Modality.VISION): "mim",
    (Stream.TEXT, Modality.LANGUAGE): "mlm",
    (Stream.PAIR, Modality.VISION): "mvlm_image",
    (Stream.PAIR, Modality.LANGUAGE): "mvlm_text",
}


def terms_of(stream: Stream) -> dict[Modality, str]:
    """The terms of a stream's loss by modality."""
    return {modality: name for (found, modality), name in TERMS.items() if found is stream}


def model_inputs(batch: Mapping[str, Any]) -> Inputs:
    """The part of a batch that the model sees."""
    names = ("image", "masked_patches", "text", "text_masked")
    return Inputs(**{name: jnp.asarray(batch[name]) for name in names if name in batch})


@dataclasses.dataclass(frozen=True)
class MaskedPrediction:
    """Cross-entropy at the masked positions of one stream.

    ``extra`` counts, per term, how often each target came up so far. A predictor that always answers with the most frequent
    one is the unigram baseline that is logged beside the accuracy.
    """

    stream: Stream
    model: VLBEiT
    tokenizer: Tokenizer

    def init_extra(self) -> dict[str, Int[Array, "V"]]:
        """No target seen yet."""
        return {
            name: jnp.zeros(self.vocabulary(modality), jnp.int32)
            for modality, name in terms_of(self.stream).items()
        }

    def weights(self, batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
        """Masked positions of every term; those of padding rows do not count."""
        return {
            name: self.slot_weights(batch, modality).sum()
            for modality, name in terms_of(self.stream).items()
        }

    def slot_weights(self, batch: dict[str, Array], modality: Modality) -> Float[Array, "B M"]:
        """1 for a masked position that counts, 0 for an unused slot or a padding row."""
        row = batch["weight"][:, None]
        if modality is Modality.LANGUAGE:
            return batch["text_weights"] * row
        return jnp.broadcast_to(row, batch["masked_patches"].shape)

    def targets(
        self, frozen: Tree, batch: dict[str, Array], modality: Modality
    ) -> Int[Array, "B M"]:
        """What has to be predicted at the masked positions."""
        if modality is Modality.LANGUAGE:
            return batch["text_targets"]
        if "image_targets" in batch:  # Kept on disk.
            return batch["image_targets"]
        codes = encode(self.tokenizer, frozen, batch["image"])
        return jnp.take_along_axis(codes, batch["masked_patches"], axis=1)

    def __call__(
        self, params: Tree, extra: Tree, frozen: Tree, batch: dict[str, Array], key: Array
    ) -> tuple[dict[str, Term], Tree]:
        """The stream's terms, and counts of their targets."""
        config = self.model.config
        draws = draws_of_rows(key, batch[ROW], config.depth, 2) if config.drop_path else None
        logits = run(self.model, params, model_inputs(batch), draws)
        terms, counts = {}, {}
        for modality, name in terms_of(self.stream).items():
            targets, weights = (
                self.targets(frozen, batch, modality),
                self.slot_weights(batch, modality),
            )
            loss, right = self.grade(logits[modality], targets, modality)
            frequent = jnp.argmax(extra[name]) == targets
            terms[name] = Term(
                loss=(loss * weights).sum(),
                weight=weights.sum(),
                sums={"accuracy": (right * weights).sum(), "unigram": (frequent * weights).sum()},
            )
            counts[name] = jnp.zeros_like(extra[name]).at[targets].add(weights.astype(jnp.int32))
        return terms, jax.lax.stop_gradient(counts)

    def update(self, extra: Tree, statistics: Tree) -> tuple[Tree, dict[str, Array]]:
        """Adds the counts of a step; all of a term are halved before one could overflow, which keeps their order."""

        def added(before: Array, new: Array) -> Array:
            total = before + new
            return jnp.where(total.max() > 2**30, total // 2, total)

        return jax.tree.map(added, extra, statistics), {}

    def crossing(self, path: Sequence[str]) -> Crossing:
        """All products are in the type of the configuration."""
        return crossing(path, matmul_dtype(self.model.config.matmul))

    def score(
        self, params: Tree, frozen: Tree, batch: dict[str, Array]
    ) -> dict[str, dict[str, Array]]:
        """Per term and example, without drop path: right answers, loss, weight; and the count of every target."""
        logits = run(self.model, params, model_inputs(batch))
        found = {}
        for modality, name in terms_of(self.stream).items():
            targets, weights = (
                self.targets(frozen, batch, modality),
                self.slot_weights(batch, modality),
            )
            loss, right = self.grade(logits[modality], targets, modality)
            found[name] = {
                "right": (right * weights).sum(axis=1),
                "loss": (loss * weights).sum(axis=1),
                "weight": weights.sum(axis=1),
                "targets": jnp.zeros(self.vocabulary(modality), jnp.float32)
                .at[targets]
                .add(weights),
            }
        return found

    def grade(
        self, logits: Float[Array, "R M V"], targets: Int[Array, "B M"], modality: Modality
    ) -> Grades:
        """Loss and whether the likeliest answer is right; word pieces may lie in parts on several chips."""
        return (
            grade_parts(logits, targets)
            if modality is Modality.LANGUAGE
            else grade(logits, targets)
        )

    def vocabulary(self, modality: Modality) -> int:
        """Number of possible answers."""
        config = self.model.config
        return config.codes if modality is Modality.VISION else config.vocabulary
