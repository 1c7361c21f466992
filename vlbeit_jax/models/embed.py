"""From pixels and word pieces to tokens: projection or look-up, CLS, position, modality."""

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.models.layers import LayerNorm, Linear, beit_init
from vlbeit_jax.models.params import declare
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.models.vocabulary import WordTable
from vlbeit_jax.ops.gather import is_at_positions
from vlbeit_jax.shapes import Array, Bool, Float, Int
from vlbeit_jax.types import Modality, Special

TEXT_NORM_EPS = 1e-12  # BERT's, which VLMo keeps.


class VisionEmbed(nn.Module):
    """Patches to tokens, the image CLS first (BEiT).

    Attributes:
      width: of a token.
      dtype: of the product.
      absolute: whether there is a table of positions.
      maskable: whether there is a mask token.
      typed: whether the embedding of the modality is added.
    """

    width: int
    dtype: jnp.dtype
    absolute: bool = True
    maskable: bool = True
    typed: bool = True

    @nn.compact
    def __call__(
        self,
        patches: Float[Array, "B N P"],
        masked: Int[Array, "B M"] | None,
        is_second: Bool[Array, " B"] | None = None,
    ) -> Tokens:
        """Returns the tokens.

        Args:
          patches: normalised pixels of each patch.
          masked: indices of the patches to replace by the mask token; None: nothing is masked.
          is_second: images that have the type of the second of two images (VLMo); None: none has,
            and there is no such type.
        """
        batch, count, _ = patches.shape
        x = Linear(self.width, (None, "embed"), self.dtype, name="patch")(patches)
        x = x.astype(jnp.float32)
        embed = declare(beit_init(), "embed")
        if self.maskable:
            mask_token = self.param("mask_token", embed, (self.width,))
            if masked is not None:
                x = jnp.where(is_at_positions(masked, count)[..., None], mask_token, x)
        cls = self.param("cls", embed, (self.width,))
        x = jnp.concatenate([jnp.broadcast_to(cls, (batch, 1, self.width)), x], axis=1)
        if self.absolute:
            table = declare(beit_init(), None, "embed")
            x = x + self.param("positions", table, (count + 1, self.width))
        if self.typed:
            kind = self.param("type", embed, (self.width,))
            if is_second is not None:
                second = self.param("second_type", embed, (self.width,))
                kind = jnp.where(is_second[:, None, None], second, kind)
            x = x + kind
        return Tokens(x, None, ((Modality.VISION, count + 1),))


class TextEmbed(nn.Module):
    """Word pieces to tokens; padding is marked as not valid.

    Without absolute positions the embeddings are normalised, as in VLMo.

    Attributes:
      width: of a token.
      vocabulary: word pieces.
      positions: longest text.
      dtype: in which embeddings are communicated.
      absolute: whether there is a table of positions.
      pad: the word piece that fills up texts.
    """

    width: int
    vocabulary: int
    positions: int
    dtype: jnp.dtype
    absolute: bool = True
    pad: int = Special.PAD

    @nn.compact
    def __call__(self, text: Int[Array, "B T"]) -> Tokens:
        """Returns the tokens of word pieces that begin with CLS and are padded with ``pad``."""
        table = WordTable(self.width, self.vocabulary, self.dtype)
        nn.share_scope(self, table)  # Its parameter stays beside this module's own.
        x = table(text)
        if self.absolute:
            init = declare(beit_init(), None, "embed")
            x = x + self.param("positions", init, (self.positions, self.width))[: text.shape[1]]
        else:
            x = LayerNorm(eps=TEXT_NORM_EPS, name="norm")(x)
        x = x + self.param("type", declare(beit_init(), "embed"), (self.width,))
        return Tokens(x, text != self.pad, ((Modality.LANGUAGE, text.shape[1]),))
