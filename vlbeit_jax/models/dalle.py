"""The encoder of DALL-E's discrete VAE, the image tokenizer of the first BEiT.

It is a residual convolutional network. A patch's visual token is the argmax of its code logits.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.ops.patches import downsample
from vlbeit_jax.shapes import Array, Float, Int, UInt8

CONVOLUTIONS = 4  # Of a residual block.


@dataclasses.dataclass(frozen=True)
class DalleConfig:
    """An encoder that was trained elsewhere; defaults are the published one's.

    Attributes:
      image_size: image side that it is used at, pixels; its weights would go with any.
      codes: visual tokens.
      width: of the first group; each group is twice as wide as the one before.
      groups: of residual blocks, with a pooling to half the side between them.
      blocks: residual blocks of a group.
    """

    image_size: int = 112
    codes: int = 8192
    width: int = 256
    groups: int = 4
    blocks: int = 2

    @property
    def patch_size(self) -> int:
        """Pixels from one visual token to the next."""
        return 2 ** (self.groups - 1)

    @property
    def grid(self) -> int:
        """Visual tokens along one side."""
        return self.image_size // self.patch_size


class Convolution(nn.Module):
    """A convolution that keeps height and width.

    Operands have the type ``dtype``; sums and results are float32.
    """

    features: int
    side: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B height width I"]) -> Float[Array, "B height width O"]:
        """Returns the convolution of ``x`` plus the bias."""
        kernel = self.param(
            "kernel",
            nn.initializers.lecun_normal(),
            (self.side, self.side, x.shape[-1], self.features),
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=jnp.float32,
        )
        return x + bias


class ResidualBlock(nn.Module):
    """Four convolutions on a residual branch, scaled by ``gain``."""

    features: int
    gain: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B height width I"]) -> Float[Array, "B height width O"]:
        """Returns activations of ``features`` channels.

        If ``x`` has another number of channels, a 1x1 convolution replaces the identity.
        """
        inner, added = self.features // 4, x
        for number, (features, side) in enumerate(
            [(inner, 3), (inner, 3), (inner, 3), (self.features, 1)], start=1
        ):
            added = Convolution(features, side, self.dtype, name=f"conv_{number}")(nn.relu(added))
        if x.shape[-1] != self.features:
            x = Convolution(self.features, 1, self.dtype, name="identity")(x)
        return x + self.gain * added


class DalleEncoder(nn.Module):
    """Predicts the visual tokens of images.

    The residual stream is float32 whatever ``matmul`` is, because a block's branch is scaled by as
    little as 1/64.
    """

    config: DalleConfig
    matmul: str = "auto"

    @nn.compact
    def __call__(self, image: UInt8[Array, "B height width 3"]) -> Float[Array, "B N C"]:
        """Returns the code logits of each patch, row by row.

        Averages a larger image down to ``config.image_size`` first.
        """
        c, dtype = self.config, matmul_dtype(self.matmul)
        x = 0.8 * downsample(image.astype(jnp.float32) / 255, c.image_size) + 0.1
        x = Convolution(c.width, 7, dtype, name="input")(x)
        gain = (c.groups * c.blocks) ** -2
        for group in range(c.groups):
            if group:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for block in range(c.blocks):
                x = ResidualBlock(
                    c.width * 2**group, gain, dtype, name=f"group_{group + 1}_block_{block + 1}"
                )(x)
        x = Convolution(c.codes, 1, dtype, name="output")(nn.relu(x))
        return x.reshape(x.shape[0], -1, c.codes)

    def encode(self, image: UInt8[Array, "B height width 3"]) -> Int[Array, "B N"]:
        """Returns visual tokens, row by row."""
        return jnp.argmax(self(image), axis=-1)
