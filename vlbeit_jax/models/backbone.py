"""The backbone that every task shares: embeddings and one Multiway Transformer."""

import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import struct
from flax.linen import spmd

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.models.embed import TextEmbed, VisionEmbed
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.models.multiway import Encoded, EncoderConfig, Multiway
from vlbeit_jax.models.tokens import Tokens, join
from vlbeit_jax.ops.patches import normalise, to_patches
from vlbeit_jax.shapes import Array, Bool, Float, Int, UInt8
from vlbeit_jax.types import Layout, Positions


@struct.dataclass
class Inputs:
    """What a network sees of a batch; a modality that is absent is None.

    Attributes:
      image: pixels; floating-point ones have been normalised.
      second_image: of two images that a text is about; a network makes a row of each.
      masked_patches: indices of the patches that the mask token replaces, and that are predicted.
      text: word pieces, already corrupted; CLS first, padded with PAD.
      text_masked: positions that are predicted (unused slots may hold any position).
    """

    image: UInt8[Array, "B height width 3"] | Float[Array, "B height width 3"] | None = None
    masked_patches: Int[Array, "B M_image"] | None = None
    second_image: UInt8[Array, "B height width 3"] | Float[Array, "B height width 3"] | None = None
    text: Int[Array, "B T"] | None = None
    text_masked: Int[Array, "B M_text"] | None = None


class Backbone(nn.Module):
    """Images, texts or both to states. Creates only the parameters that its inputs need.

    A network wraps it with its heads in one scope (``nn.share_scope``), so that parameters are
    called ``vision_embed``, ``text_embed`` and ``encoder`` in every network.

    Attributes:
      config: of the model.
      final_norm: whether states are normalised; without it, heads bring their own norm.
    """

    config: ModelConfig
    final_norm: bool = True

    def setup(self):
        """Creates the parts; the parameters of a part exist once it has been called."""
        c, dtype = self.config, matmul_dtype(self.config.matmul)
        absolute = c.positions is Positions.ABSOLUTE
        self.vision_embed = VisionEmbed(c.width, dtype, absolute)
        self.text_embed = TextEmbed(c.width, c.vocabulary, c.text_positions, dtype, absolute, c.pad)
        self.encoder = Multiway(
            EncoderConfig(
                width=c.width,
                depth=c.depth,
                heads=c.heads,
                ffn_width=c.ffn_width,
                dtype=dtype,
                fused_layers=c.fused_layers,
                layer_scale=c.layer_scale,
                drop_path=c.drop_path,
                eps=c.norm_eps,
                sub_norm=c.sub_norm,
                decoupled=c.decoupled,
                final_norm=self.final_norm,
                relative_grid=0 if absolute else c.grid,
                relative_text=0 if absolute else c.text_positions,
                attention=c.attention,
                remat=c.remat,
                scan=c.scan,
            )
        )

    def __call__(
        self,
        inputs: Inputs,
        *,
        drop_path: Float[Array, "B Z 2"] | None = None,
        keep: Sequence[int] = (),
        attend: Callable[[Layout], np.ndarray] | None = None,
        is_second: Bool[Array, " B"] | None = None,
    ) -> Encoded:
        """Returns the states of image CLS and patches, then of the text.

        Args:
          inputs: of one batch.
          drop_path: uniform draws in [0, 1) per row and block; None in evaluation.
          keep: as in ``Multiway``.
          attend: from the layout to a static Bool[L, L], True where a query may see a key.
          is_second: rows whose image is the second of two, which has a type of its own.
        """
        assert inputs.second_image is None, "a row has one image"
        parts = []
        if inputs.image is not None:
            patches = to_patches(normalise(inputs.image), self.config.patch_size)
            parts.append(self.vision_embed(patches, inputs.masked_patches, is_second))
        if inputs.text is not None:
            parts.append(self.text_embed(inputs.text))
        return self.encoder(_prepared(join(parts), attend), drop_path, keep)


def _prepared(tokens: Tokens, attend: Callable[[Layout], np.ndarray] | None) -> Tokens:
    mask = None if attend is None else jnp.asarray(attend(tokens.layout))
    x = spmd.with_logical_constraint(tokens.x, ("batch", None, None))
    return dataclasses.replace(tokens, x=x, mask=mask)


def layer_of(path: Sequence[str], depth: int) -> int:
    """Returns the layer of a parameter, for layer-wise learning rates.

    Args:
      path: names from the root of a network.
      depth: blocks of its encoder.

    Returns:
      0 for embeddings, i + 1 for block i, depth + 1 for everything else.
    """
    if path[0] in ("vision_embed", "text_embed"):
        return 0
    if path[0] == "encoder" and path[1].startswith("block_"):
        return int(path[1].removeprefix("block_")) + 1
    return depth + 1
