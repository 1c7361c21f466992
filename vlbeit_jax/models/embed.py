"""From pixels and word pieces to tokens: projection or look-up, CLS, position, modality (spec section 1.4)."""

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.models.layers import (
    LayerNorm,
    Linear,
    beit_init,
    padded_vocabulary,
    partitioned,
    zero_from,
)
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.ops.gather import is_at_positions
from vlbeit_jax.ops.vocabulary import look_up, parts
from vlbeit_jax.shapes import Array, Float, Int
from vlbeit_jax.types import Modality, Special

TEXT_NORM_EPS = 1e-12


class VisionEmbed(nn.Module):
    """Patches to tokens, image CLS first; masked patches become the mask token before positions are added."""

    width: int
    dtype: jnp.dtype
    absolute: bool = True
    maskable: bool = True
    typed: bool = True

    @nn.compact
    def __call__(self, patches: Float[Array, "B N P"], masked: Int[Array, "B M"] | None) -> Tokens:
        """Args: ``patches``, and the positions of the masked ones (None: nothing is masked)."""
        batch, count, _ = patches.shape
        x = Linear(self.width, (None, "embed"), self.dtype, name="patch")(patches).astype(
            jnp.float32
        )
        if self.maskable:
            mask_token = self.param("mask_token", partitioned(beit_init(), "embed"), (self.width,))
            if masked is not None:
                x = jnp.where(is_at_positions(masked, count)[..., None], mask_token, x)
        cls = self.param("cls", partitioned(beit_init(), "embed"), (self.width,))
        x = jnp.concatenate([jnp.broadcast_to(cls, (batch, 1, self.width)), x], axis=1)
        if self.absolute:
            x = x + self.param(
                "positions", partitioned(beit_init(), None, "embed"), (count + 1, self.width)
            )
        if self.typed:
            x = x + self.param("type", partitioned(beit_init(), "embed"), (self.width,))
        return Tokens(x, None, ((Modality.VISION, count + 1),))


class TextEmbed(nn.Module):
    """Word pieces to tokens; padding is marked as not valid.

    Without absolute positions the embeddings are normalised, as in VLMo (and BERT, whose epsilon this is).
    """

    width: int
    vocabulary: int
    positions: int
    dtype: jnp.dtype
    absolute: bool = True
    pad: int = Special.PAD

    @nn.compact
    def __call__(self, text: Int[Array, "B T"]) -> Tokens:
        """Args: ``text``, word pieces with CLS first, already corrupted, padded with ``pad``."""
        init = zero_from(beit_init(), self.vocabulary, axis=0)
        rows = padded_vocabulary(self.vocabulary) // parts()
        words = self.param("words", partitioned(init, "word", "word_width"), (rows, self.width))
        x = look_up(words, text, self.dtype).astype(jnp.float32)
        if self.absolute:
            table = self.param(
                "positions", partitioned(beit_init(), None, "embed"), (self.positions, self.width)
            )
            x = x + table[: text.shape[1]]
        else:
            x = LayerNorm(eps=TEXT_NORM_EPS, name="norm")(x)
        x = x + self.param("type", partitioned(beit_init(), "embed"), (self.width,))
        return Tokens(x, text != self.pad, ((Modality.LANGUAGE, text.shape[1]),))
