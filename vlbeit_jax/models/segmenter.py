"""A network that gives each pixel a class: the backbone without its final norm, and UPerNet."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.convolutions import Over
from vlbeit_jax.models.heads.upernet import (
    AUXILIARY_TAP,
    AuxiliaryHead,
    UPerConfig,
    UPerNet,
    as_map,
    auxiliary_width,
    kept_channels,
)
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.shapes import Array, Float


class TrainingLogits(NamedTuple):
    """Logits of both heads, float32.

    Attributes:
      main: at a quarter of the image's side.
      auxiliary: as many as there are patches; None without such a head.
    """

    main: Float[Array, "B h w C"]
    auxiliary: Float[Array, "B G G C"] | None


class Segmenter(nn.Module):
    """Logits of classes for places of an image.

    Attributes:
      config: of the backbone.
      upernet: of the head.
      taps: four blocks, counted from 0, whose states the head takes.
    """

    config: ModelConfig
    upernet: UPerConfig
    taps: tuple[int, ...]

    def setup(self):
        """Creates the parts; the parameters of a part exist once it has been called."""
        self.backbone = Backbone(self.config, final_norm=False)
        nn.share_scope(self, self.backbone)
        self.head = Heads(self.upernet, matmul_dtype(self.config.matmul))

    def __call__(self, inputs: Inputs) -> Float[Array, "B h w C"]:
        """Returns logits of images at a quarter of their side, float32, for evaluation."""
        return self.head.main(self.features(inputs))

    def features(
        self, inputs: Inputs, drop_path: Float[Array, "B Z 2"] | None = None
    ) -> tuple[Float[Array, "B G G D"], ...]:
        """Returns the head's four maps; the arguments are those of ``Backbone``."""
        kept = self.backbone(inputs, drop_path=drop_path, keep=self.taps).kept
        return tuple(as_map(states, self.config.grid) for states in kept)

    def training_logits(
        self,
        features: Sequence[Float[Array, "B G G D"]],
        draws: Float[Array, "B channels"] | None,
        rate: float,
        over: tuple[str, ...],
    ) -> TrainingLogits:
        """Returns the logits of both heads.

        Args:
          features: of ``features``.
          draws: uniform ones for each row and channel of the heads' last maps; None: no dropout.
          rate: of dropout.
          over: mesh axes that rows are split over.
        """
        kept, width = kept_channels(draws, rate), self.upernet.width
        main = self.head.main(features, None if kept is None else kept[:, :width], over)
        if not self.upernet.auxiliary:
            return TrainingLogits(main, None)
        own = None if kept is None else kept[:, width:]
        return TrainingLogits(main, self.head.auxiliary(features[AUXILIARY_TAP], own, over))

    @property
    def dropped_channels(self) -> int:
        """Channels of both heads' last maps."""
        extra = auxiliary_width(self.upernet) if self.upernet.auxiliary else 0
        return self.upernet.width + extra

    def init_all(self) -> None:
        """Creates every parameter; with BatchNorm, not its statistics."""
        side = self.config.image_size
        features = self.features(Inputs(image=jnp.zeros((1, side, side, 3), jnp.uint8)))
        self.training_logits(features, None, 0.0, ())


class Heads(nn.Module):
    """Both heads, under one name.

    Attributes:
      config: sizes.
      dtype: of the products' operands.
    """

    config: UPerConfig
    dtype: jnp.dtype

    def setup(self):
        """Creates the heads; the parameters of one exist once it has been called."""
        self.upernet = UPerNet(self.config, self.dtype)
        self.fcn = AuxiliaryHead(self.config, self.dtype)

    def main(
        self, features: Sequence[Array], kept: Array | None = None, over: Over = None
    ) -> Float[Array, "B h w C"]:
        """See ``UPerNet``."""
        return self.upernet(features, kept, over)

    def auxiliary(
        self, feature: Array, kept: Array | None = None, over: Over = None
    ) -> Float[Array, "B G G C"]:
        """See ``AuxiliaryHead``."""
        return self.fcn(feature, kept, over)
