"""VQ-KD: an encoder, a codebook on the unit sphere and a decoder that predicts a teacher (BEiT v2; spec section 3.1).

And ``encode``, which is all that pretraining asks of a visual tokenizer of either kind.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlbeit_jax.config import VisualTokenizerConfig
from vlbeit_jax.models.dalle import DalleEncoder
from vlbeit_jax.models.embed import VisionEmbed
from vlbeit_jax.models.layers import MULTIPLIED, TanhProjection, matmul_dtype, run
from vlbeit_jax.models.multiway import Multiway, Trunk
from vlbeit_jax.ops.patches import downsample, normalise, to_patches
from vlbeit_jax.ops.quantize import l2_normalise, nearest_code
from vlbeit_jax.shapes import Array, Float, Int, UInt8
from vlbeit_jax.types import Modality


class VisualTokenizer(nn.Module):
    """The trainable part; the codebook is not a parameter and is passed in, because no gradient moves it."""

    config: VisualTokenizerConfig
    target_width: int

    def setup(self):
        """Creates encoder, decoder and the projections around the codebook."""
        c, dtype = self.config, matmul_dtype(self.config.matmul)

        def transformer(depth: int) -> Multiway:
            trunk = Trunk(
                width=c.width,
                depth=depth,
                heads=c.heads,
                ffn_width=c.ffn_width,
                dtype=dtype,
                drop_path=c.drop_path,
                attention=c.attention,
                scan=c.scan,
            )
            return Multiway(trunk)

        self.encoder_embed = VisionEmbed(c.width, dtype, maskable=False, typed=False)
        self.encoder = transformer(c.encoder_depth)
        self.to_code = TanhProjection(c.code_width)
        self.decoder_embed = VisionEmbed(c.width, dtype, maskable=False, typed=False)
        self.decoder = transformer(c.decoder_depth)
        self.to_target = TanhProjection(self.target_width)

    def features(
        self, image: UInt8[Array, "B height width 3"], draws: Float[Array, "B Z 2"] | None = None
    ) -> Float[Array, "B N E"]:
        """Unit vectors, one a patch, before quantization; a larger image is first averaged down to ``config.image_size``."""
        patches = to_patches(
            downsample(normalise(image), self.config.image_size), self.config.patch_size
        )
        tokens = self.encoder(self.encoder_embed(patches, None), draws)
        return l2_normalise(self.to_code(tokens.segment(Modality.VISION)[:, 1:]))

    def encode(
        self, image: UInt8[Array, "B height width 3"], codebook: Float[Array, "C E"]
    ) -> Int[Array, "B N"]:
        """Visual tokens, row by row."""
        return nearest_code(self.features(image), codebook)

    def decode(
        self, codes: Float[Array, "B N E"], draws: Float[Array, "B Z 2"] | None = None
    ) -> Float[Array, "B N O"]:
        """Predictions of the teacher from code vectors."""
        tokens = self.decoder(self.decoder_embed(codes, None), draws)
        return self.to_target(tokens.segment(Modality.VISION)[:, 1:])

    def __call__(
        self,
        image: UInt8[Array, "B height width 3"],
        codebook: Float[Array, "C E"],
        draws: Float[Array, "B Z 2"] | None = None,
    ) -> tuple[Float[Array, "B N E"], Int[Array, "B N"], Float[Array, "B N O"]]:
        """Features, their codes and the decoder's predictions; gradients pass the quantizer straight through.

        ``draws`` are for drop path: those of the encoder's blocks, then those of the decoder's.
        """
        of_encoder, of_decoder = (
            (None, None) if draws is None else jnp.split(draws, [self.config.encoder_depth], axis=1)
        )
        features = self.features(image, of_encoder)
        codes = nearest_code(jax.lax.stop_gradient(features), codebook)
        passed = features + jax.lax.stop_gradient(jnp.take(codebook, codes, axis=0) - features)
        return features, codes, self.decode(passed, of_decoder)


Tokenizer = VisualTokenizer | DalleEncoder
EXACT = ("to_code", "to_target")  # Parts of VQ-KD whose products are in float32.


def as_multiplied(tokenizer: Tokenizer, frozen: Mapping[str, Any]) -> dict[str, Any]:
    """Frozen parameters in the type of their products, once and not in every step; what is computed with them stays the same."""
    if isinstance(tokenizer, DalleEncoder):
        return dict(frozen)
    dtype = matmul_dtype(tokenizer.config.matmul)

    def cast(path: Any, leaf: Array) -> Array:
        first, last = path[0].key, path[-1].key
        return leaf.astype(dtype) if last in MULTIPLIED and first not in EXACT else leaf

    return {**frozen, "params": jax.tree_util.tree_map_with_path(cast, frozen["params"])}


def encode(
    tokenizer: Tokenizer, frozen: Mapping[str, Any], image: UInt8[Array, "B height width 3"]
) -> Int[Array, "B N"]:
    """Visual tokens of either tokenizer, row by row.

    Args:
      tokenizer: the network.
      frozen: its ``params``, and by name what else its ``encode`` takes (VQ-KD's codebook).
      image: as the model sees it; its sides are multiples of the tokenizer's.
    """
    beside = {name: value for name, value in frozen.items() if name != "params"}
    return run(tokenizer, frozen["params"], image, method="encode", **beside)
