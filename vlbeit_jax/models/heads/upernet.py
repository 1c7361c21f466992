"""UPerNet: classes of pixels from states of several blocks (arXiv 1807.10221; BEiT's variant).

Names in brackets are those of Figure 4 of the paper. All maps lie as ``B h w C``.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.models.convolutions import GROUP, ConvNorm, Doubled, Norm, Over
from vlbeit_jax.models.layers import Linear
from vlbeit_jax.ops.gelu import gelu
from vlbeit_jax.ops.maps import pool_map, resize_map
from vlbeit_jax.shapes import Array, Float

AUXILIARY_WIDTH = 256
AUXILIARY_TAP = 2  # The third one.
_last = nn.initializers.normal(0.01)


@dataclasses.dataclass(frozen=True)
class UPerConfig:
    """Sizes of the head.

    Attributes:
      classes: of a pixel.
      width: of its maps.
      pools: parts along a side that the last map is averaged over (pyramid pooling).
      norm: see ``models.convolutions.Norm``.
      auxiliary: whether there is a second, small head, for training.
    """

    classes: int
    width: int
    pools: tuple[int, ...] = (1, 2, 3, 6)
    norm: str = GROUP
    auxiliary: bool = True


class UPerNet(nn.Module):
    """Logits of classes at a quarter of the image's side.

    Attributes:
      config: sizes.
      dtype: of the products' operands.
    """

    config: UPerConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        taps: Sequence[Float[Array, "B G G D"]],
        kept: Float[Array, "B channels"] | None = None,
        over: Over = None,
    ) -> Float[Array, "B h w C"]:
        """Returns logits, float32.

        Args:
          taps: four maps, those of earlier blocks first.
          kept: factors of the last map's channels (dropout); None: all are kept.
          over: see ``models.convolutions``.
        """
        levels = Pyramid(self.config.norm, self.dtype, name="pyramid")(taps, over)
        top = self._pooled(levels[-1], over)
        lateral = [
            self._conv(f"lateral_{index}", 1)(level, over)
            for index, level in enumerate(levels[:-1])
        ]
        maps = [top]
        for level in reversed(lateral):
            maps.insert(0, level + resize_map(maps[0], *level.shape[1:3]))
        smooth = [
            self._conv(f"smooth_{index}")(level, over) for index, level in enumerate(maps[:-1])
        ]
        size = smooth[0].shape[1:3]
        joined = [resize_map(level, *size) for level in (*smooth, top)]
        fused = self._conv("fuse")(jnp.concatenate(joined, axis=-1), over)
        if kept is not None:
            fused = fused * kept[:, None, None, :].astype(fused.dtype)
        return self._classes("classes")(fused)

    def _pooled(self, x: Array, over: Over) -> Array:
        """Returns the last map with means over parts of it [PPM]."""
        parts = [x]
        for bins in self.config.pools:
            part = self._conv(f"pool_{bins}", 1)(pool_map(x, bins), over)
            parts.append(resize_map(part, *x.shape[1:3]))
        return self._conv("pooled")(jnp.concatenate(parts, axis=-1), over)

    def _conv(self, name: str, size: int = 3) -> ConvNorm:
        return ConvNorm(self.config.width, self.config.norm, self.dtype, size, name=name)

    def _classes(self, name: str) -> Linear:
        return Linear(
            self.config.classes, ("embed", None), self.dtype, _last, exact=True, name=name
        )


class Pyramid(nn.Module):
    """Four maps of one size to maps at 4, 8, 16 and 32 pixels a place, if a patch has 16 (BEiT).

    Attributes:
      norm: see ``models.convolutions.Norm``.
      dtype: of the products' operands.
    """

    norm: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, taps: Sequence[Float[Array, "B G G D"]], over: Over = None) -> list[Array]:
        """Returns the maps, the largest first."""
        first, second, third, fourth = (each.astype(self.dtype) for each in taps)
        width = first.shape[-1]
        first = Doubled(width, self.dtype, name="first")(first)
        first = gelu(Norm(self.norm, self.dtype, name="first_norm")(first, over))
        return [
            Doubled(width, self.dtype, name="first_again")(first),
            Doubled(width, self.dtype, name="second")(second),
            third,
            nn.max_pool(fourth, (2, 2), (2, 2)),
        ]


class AuxiliaryHead(nn.Module):
    """Logits of classes from one map: a convolution, a linear map (FCN, arXiv 1411.4038).

    Attributes:
      config: of the main head.
      dtype: of the products' operands.
    """

    config: UPerConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        tap: Float[Array, "B G G D"],
        kept: Float[Array, "B channels"] | None = None,
        over: Over = None,
    ) -> Float[Array, "B G G C"]:
        """Returns logits, float32; the arguments are those of ``UPerNet``."""
        c = self.config
        x = ConvNorm(auxiliary_width(c), c.norm, self.dtype, name="conv")(tap, over)
        if kept is not None:
            x = x * kept[:, None, None, :].astype(x.dtype)
        classes = Linear(c.classes, ("embed", None), self.dtype, _last, exact=True, name="classes")
        return classes(x)


def auxiliary_width(config: UPerConfig) -> int:
    """Returns the width of the auxiliary head: 256, or the main head's if that is less."""
    return min(AUXILIARY_WIDTH, config.width)


def kept_channels(
    draws: Float[Array, "B channels"] | None, rate: float
) -> Float[Array, "B channels"] | None:
    """Returns factors of dropout for whole channels, from uniform draws; None from None."""
    if draws is None:
        return None
    return jnp.where(draws >= rate, 1 / (1 - rate), 0.0)


def as_map(states: Float[Array, "B L D"], grid: int) -> Float[Array, "B G G D"]:
    """Returns the states of patches as a map; CLS, which comes first, is left out."""
    return states[:, 1 : grid * grid + 1].reshape(states.shape[0], grid, grid, -1)


def default_taps(depth: int) -> tuple[int, ...]:
    """Returns blocks, counted from 0: 3, 5, 7, 11 of 12, and 7, 11, 15, 23 of 24 (BEiT)."""
    shares = (1 / 3, 1 / 2, 2 / 3, 1)
    return tuple(max(round(depth * share) - 1, 0) for share in shares)
