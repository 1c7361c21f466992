"""BEiT-3's attention: every modality has its own projections and norms, and all tokens attend to each other."""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.models.layers import LayerNorm, Linear, beit_init, concatenate_axis1
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.ops.attention import (
    attention,
    attention_by_parts,
    choose_implementation,
    group_by_lanes,
)
from vlbeit_jax.shapes import Array, Float


class DecoupledAttention(nn.Module):
    """Norm, projections with biases on all three, attention over the whole sequence, inner norm, output projection.

    A key bias of its own for each modality does not fall out of the softmax, as a common one does.
    """

    heads: int
    block: int
    dtype: jnp.dtype
    eps: float
    sub_norm: bool
    how: str = "auto"

    @nn.compact
    def __call__(self, tokens: Tokens, bias: Float[Array, "H L L"] | None) -> Float[Array, "B L D"]:
        """Mixes the tokens of each row; ``bias`` is added to the logits."""
        width = tokens.x.shape[-1]
        by_modality = []
        for modality, _ in tokens.layout:
            x = LayerNorm(self.dtype, self.eps, name=f"{modality}_norm")(tokens.segment(modality))
            linear = functools.partial(Linear, width, ("embed", "heads"), self.dtype)
            by_modality.append(
                [linear(name=f"{modality}_{part}")(x) for part in ("query", "key", "value")]
            )
        query, key, value = (concatenate_axis1(parts) for parts in zip(*by_modality, strict=True))
        how = choose_implementation(
            self.how, query.shape[1], width, self.heads, query.dtype, bias is not None
        )
        if how == "fused":
            projected = group_by_lanes(query, key, value, self.heads)
            mixed = attention(projected, jnp.zeros(3 * width), self.heads, tokens.valid, bias, how)
        else:
            mixed = attention_by_parts(query, key, value, self.heads, tokens.valid, bias, how)
        mixed, out = dataclasses.replace(tokens, x=mixed), []
        for modality, _ in tokens.layout:
            x = mixed.segment(modality)
            if self.sub_norm:
                x = LayerNorm(self.dtype, self.eps, name=f"{modality}_inner_norm")(x)
            out.append(
                Linear(
                    width,
                    ("heads", "embed"),
                    self.dtype,
                    beit_init(self.block),
                    name=f"{modality}_out",
                )(x)
            )
        return concatenate_axis1(out)
