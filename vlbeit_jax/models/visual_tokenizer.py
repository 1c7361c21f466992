"""VQ-KD: an encoder, a codebook on the unit sphere, and a decoder that predicts a teacher.

From BEiT v2 (arXiv 2208.06366). Pretraining uses only ``encode``.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlbeit_jax.config.networks import VisualTokenizerConfig
from vlbeit_jax.models.dalle import DalleEncoder
from vlbeit_jax.models.embed import VisionEmbed
from vlbeit_jax.models.layers import TanhProjection, matmul_dtype
from vlbeit_jax.models.multiway import EncoderConfig, Multiway
from vlbeit_jax.models.params import cast_params, read_info
from vlbeit_jax.ops.patches import downsample, normalise, to_patches
from vlbeit_jax.ops.quantize import l2_normalise, nearest_code
from vlbeit_jax.shapes import Array, Float, Int, Tree, UInt8
from vlbeit_jax.types import Modality


class VisualTokenizer(nn.Module):
    """The trainable part. The codebook is an input, because no gradient updates it."""

    config: VisualTokenizerConfig
    target_width: int

    def setup(self):
        """Creates encoder, decoder and the projections around the codebook."""
        c, dtype = self.config, matmul_dtype(self.config.matmul)

        def transformer(depth: int) -> Multiway:
            return Multiway(
                EncoderConfig(
                    width=c.width,
                    depth=depth,
                    heads=c.heads,
                    ffn_width=c.ffn_width,
                    dtype=dtype,
                    drop_path=c.drop_path,
                    attention=c.attention,
                    scan=c.scan,
                )
            )

        self.encoder_embed = VisionEmbed(c.width, dtype, maskable=False, typed=False)
        self.encoder = transformer(c.encoder_depth)
        self.to_code = TanhProjection(c.code_width)
        self.decoder_embed = VisionEmbed(c.width, dtype, maskable=False, typed=False)
        self.decoder = transformer(c.decoder_depth)
        self.to_target = TanhProjection(self.target_width)

    def features(
        self,
        image: UInt8[Array, "B height width 3"],
        drop_path: Float[Array, "B Z 2"] | None = None,
    ) -> Float[Array, "B N E"]:
        """Returns a unit vector per patch, before quantization.

        An image larger than ``config.image_size`` is averaged down first.
        """
        pixels = downsample(normalise(image), self.config.image_size)
        patches = to_patches(pixels, self.config.patch_size)
        tokens = self.encoder(self.encoder_embed(patches, None), drop_path).tokens
        return l2_normalise(self.to_code(tokens.segment(Modality.VISION)[:, 1:]))

    def encode(
        self, image: UInt8[Array, "B height width 3"], codebook: Float[Array, "C E"]
    ) -> Int[Array, "B N"]:
        """Returns visual tokens, row by row."""
        return nearest_code(self.features(image), codebook)

    def decode(
        self, codes: Float[Array, "B N E"], drop_path: Float[Array, "B Z 2"] | None = None
    ) -> Float[Array, "B N O"]:
        """Returns predictions of the teacher from code vectors."""
        tokens = self.decoder(self.decoder_embed(codes, None), drop_path).tokens
        return self.to_target(tokens.segment(Modality.VISION)[:, 1:])

    def __call__(
        self,
        image: UInt8[Array, "B height width 3"],
        codebook: Float[Array, "C E"],
        drop_path: Float[Array, "B Z 2"] | None = None,
    ) -> tuple[Float[Array, "B N E"], Int[Array, "B N"], Float[Array, "B N O"]]:
        """Returns features, their codes and the decoder's predictions.

        Args:
          image: pixels.
          codebook: unit vectors.
          drop_path: uniform draws for the encoder's blocks, then for the decoder's.
        """
        of_encoder = of_decoder = None
        if drop_path is not None:
            of_encoder, of_decoder = jnp.split(drop_path, [self.config.encoder_depth], axis=1)
        features = self.features(image, of_encoder)
        codes = nearest_code(jax.lax.stop_gradient(features), codebook)
        # Straight through: the value is the code vector, the gradient that of the features.
        quantized = features + jax.lax.stop_gradient(jnp.take(codebook, codes, axis=0) - features)
        return features, codes, self.decode(quantized, of_decoder)


Tokenizer = VisualTokenizer | DalleEncoder


# Tracing takes seconds at base size, and several parts of a start ask.
@functools.lru_cache(maxsize=8)
def tokenizer_params(config: VisualTokenizerConfig, target_width: int) -> Tree:
    """Returns the shapes of a VQ-KD's parameters, boxed with their ``ParamInfo``."""
    side = config.image_size
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)
    codebook = jax.ShapeDtypeStruct((config.codes, config.code_width), jnp.float32)
    init = VisualTokenizer(config, target_width).init
    return jax.eval_shape(init, jax.eval_shape(jax.random.key, 0), image, codebook)["params"]


def tokenizer_shapes(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the shapes of what ``encode`` takes as ``frozen``."""
    config = tokenizer.config
    if isinstance(tokenizer, DalleEncoder):
        image = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.uint8)
        return dict(jax.eval_shape(tokenizer.init, jax.eval_shape(jax.random.key, 0), image))
    boxed = tokenizer_params(tokenizer.config, tokenizer.target_width)
    codebook = (tokenizer.config.codes, tokenizer.config.code_width)
    return {
        "params": nn.unbox(boxed),
        "codebook": jax.ShapeDtypeStruct(codebook, jnp.float32),
    }


def cast_tokenizer(tokenizer: Tokenizer, frozen: Mapping[str, Any]) -> dict[str, Any]:
    """Casts a frozen tokenizer's parameters to the types of their products, once for all steps.

    Visual tokens stay the same, because the network casts its parameters so in any case.
    """
    if isinstance(tokenizer, DalleEncoder):
        return dict(frozen)
    info = read_info(tokenizer_params(tokenizer.config, tokenizer.target_width))
    return {**frozen, "params": cast_params(frozen["params"], info)}


def encode(
    tokenizer: Tokenizer, frozen: Mapping[str, Any], image: UInt8[Array, "B height width 3"]
) -> Int[Array, "B N"]:
    """Returns visual tokens of either tokenizer, row by row.

    Args:
      tokenizer: the network.
      frozen: its ``params``, and by name what else its ``encode`` takes (VQ-KD's codebook).
      image: pixels; its sides are multiples of the tokenizer's image size.
    """
    beside = {name: value for name, value in frozen.items() if name != "params"}
    variables = {"params": frozen["params"]}
    tokens: Any = tokenizer.apply(variables, image, method="encode", **beside)
    return tokens
