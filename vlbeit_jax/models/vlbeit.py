"""VL-BEiT: the backbone and a prediction head per modality (arXiv 2206.01127)."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.layers import Linear, matmul_dtype
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.models.vocabulary import WordHead
from vlbeit_jax.ops.gather import gather_positions
from vlbeit_jax.ops.losses import Prediction, cross_entropy
from vlbeit_jax.shapes import Array, Float, Int
from vlbeit_jax.types import Modality


class VLBEiT(nn.Module):
    """Predicts visual tokens at masked patches, and word pieces at masked words."""

    config: ModelConfig

    def setup(self):
        """Creates the parts; the parameters of a part exist once it has been called."""
        c, dtype = self.config, matmul_dtype(self.config.matmul)
        self.backbone = Backbone(c)
        nn.share_scope(self, self.backbone)
        self.vision_head = Linear(c.codes, ("embed", "vocab"), dtype, exact=True)
        self.language_head = WordHead(c.vocabulary, dtype)

    def __call__(
        self,
        inputs: Inputs,
        targets: Mapping[Modality, Int[Array, "B M"]],
        drop_path: Float[Array, "B Z 2"] | None = None,
    ) -> dict[Modality, Prediction]:
        """Returns loss and correctness at the masked positions of every modality with targets.

        Args:
          inputs: with masked positions.
          targets: classes at these positions.
          drop_path: as in ``Backbone``.
        """

        def predict(modality: Modality, states: Float[Array, "B M D"]) -> Prediction:
            if modality is Modality.VISION:
                return cross_entropy(self.vision_head(states), targets[modality])
            return self.language_head(states, targets[modality])

        return self._at_masked(inputs, drop_path, predict)

    def encode(self, inputs: Inputs, drop_path: Float[Array, "B Z 2"] | None = None) -> Tokens:
        """Returns the final states of all tokens: image CLS and patches, then the text."""
        return self.backbone(inputs, drop_path=drop_path).tokens

    def logits(
        self, inputs: Inputs, drop_path: Float[Array, "B Z 2"] | None = None
    ) -> dict[Modality, Float[Array, "B M V"]]:
        """Returns logits (float32) at the masked positions of every modality; for inference."""
        heads = {Modality.VISION: self.vision_head, Modality.LANGUAGE: self.language_head.logits}
        return self._at_masked(inputs, drop_path, lambda modality, states: heads[modality](states))

    def init_all(self) -> None:
        """Calls every path once, so that every parameter is created: images, texts and pairs."""
        side = self.config.image_size
        one = jnp.zeros((1, 1), jnp.int32)
        vision = {"image": jnp.zeros((1, side, side, 3), jnp.uint8), "masked_patches": one}
        language = {"text": jnp.ones((1, 3), jnp.int32), "text_masked": one}
        for present in (vision, language, vision | language):
            self.logits(Inputs(**present))

    def _at_masked(
        self,
        inputs: Inputs,
        drop_path: Float[Array, "B Z 2"] | None,
        predict: Callable[[Modality, Float[Array, "B M D"]], Any],
    ) -> dict[Modality, Any]:
        tokens, predictions = self.encode(inputs, drop_path), {}
        if inputs.masked_patches is not None:
            patches = inputs.masked_patches + 1  # The image CLS is the first token.
            states = gather_positions(tokens.segment(Modality.VISION), patches)
            predictions[Modality.VISION] = predict(Modality.VISION, states)
        if inputs.text_masked is not None:
            states = gather_positions(tokens.segment(Modality.LANGUAGE), inputs.text_masked)
            predictions[Modality.LANGUAGE] = predict(Modality.LANGUAGE, states)
        return predictions
