"""VL-BEiT: embeddings, one Multiway Transformer, one prediction head per modality (spec sections 1 and 2)."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from flax.linen import spmd

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.models.embed import TextEmbed, VisionEmbed
from vlbeit_jax.models.layers import Linear, beit_init, matmul_dtype, padded_vocabulary, zero_from
from vlbeit_jax.models.multiway import Multiway, Trunk
from vlbeit_jax.models.tokens import Tokens, join
from vlbeit_jax.ops.gather import gather_positions
from vlbeit_jax.ops.patches import normalise, to_patches
from vlbeit_jax.ops.vocabulary import for_all_parts, numbers, parts
from vlbeit_jax.shapes import Array, Float, Int, UInt8
from vlbeit_jax.types import Modality, Positions


@struct.dataclass
class Inputs:
    """What the model sees of a batch; a modality that is absent is None.

    Attributes:
      image: pixels.
      masked_patches: patches that are replaced by the mask token and predicted.
      text: word pieces, already corrupted; CLS first, padded with PAD.
      text_masked: positions that are predicted (unused slots may hold any position).
    """

    image: UInt8[Array, "B height width 3"] | None = None
    masked_patches: Int[Array, "B M_image"] | None = None
    text: Int[Array, "B T"] | None = None
    text_masked: Int[Array, "B M_text"] | None = None


class VLBEiT(nn.Module):
    """Returns, per modality present, the logits at its masked positions."""

    config: ModelConfig

    def setup(self):
        """Creates the parts; a part's parameters exist once it has been called (see ``init_all``)."""
        c, dtype = self.config, matmul_dtype(self.config.matmul)
        absolute = c.positions is Positions.ABSOLUTE
        self.vision_embed = VisionEmbed(c.width, dtype, absolute)
        self.text_embed = TextEmbed(c.width, c.vocabulary, c.text_positions, dtype, absolute, c.pad)
        trunk = Trunk(
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
            relative_grid=0 if absolute else c.grid,
            relative_text=0 if absolute else c.text_positions,
            attention=c.attention,
            remat=c.remat,
            scan=c.scan,
        )
        self.encoder = Multiway(trunk)
        self.vision_head = Linear(c.codes, ("embed", "vocab"), dtype, exact=True)
        init = zero_from(beit_init(), c.vocabulary, axis=1)
        self.language_head = Linear(
            padded_vocabulary(c.vocabulary) // parts(), (None, "piece"), dtype, init, exact=True
        )

    def encode(self, inputs: Inputs, draws: Float[Array, "B Z 2"] | None = None) -> Tokens:
        """Final states of all tokens: image CLS and patches, then text; ``draws`` as in ``Multiway``."""
        parts = []
        if inputs.image is not None:
            patches = to_patches(normalise(inputs.image), self.config.patch_size)
            parts.append(self.vision_embed(patches, inputs.masked_patches))
        if inputs.text is not None:
            parts.append(self.text_embed(inputs.text))
        tokens = join(parts)
        tokens = dataclasses.replace(
            tokens, x=spmd.with_logical_constraint(tokens.x, ("batch", None, None))
        )
        return self.encoder(tokens, draws)

    def __call__(
        self, inputs: Inputs, draws: Float[Array, "B Z 2"] | None = None
    ) -> dict[Modality, Float[Array, "R M V"]]:
        """Logits (float32) at the masked positions of every modality whose positions are given.

        Where the vocabulary is cut over chips, those of the language are of all these chips' rows (``ops.vocabulary``).
        """
        tokens = self.encode(inputs, draws)
        logits = {}
        if inputs.masked_patches is not None:
            states = gather_positions(tokens.segment(Modality.VISION), inputs.masked_patches + 1)
            logits[Modality.VISION] = self.vision_head(states)
        if inputs.text_masked is not None:
            states = gather_positions(tokens.segment(Modality.LANGUAGE), inputs.text_masked)
            found = self.language_head(for_all_parts(states))
            real = numbers(found.shape[-1]) < self.config.vocabulary
            logits[Modality.LANGUAGE] = jnp.where(real, found, -jnp.inf)
        return logits

    def init_all(self) -> None:
        """Calls every path once, so that every parameter is created: images, texts and pairs."""
        image = jnp.zeros((1, self.config.image_size, self.config.image_size, 3), jnp.uint8)
        positions, text = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 3), jnp.int32)
        vision = {"image": image, "masked_patches": positions}
        language = {"text": text, "text_masked": positions}
        for present in (vision, language, vision | language):
            self(Inputs(**present))
