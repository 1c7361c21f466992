"""BEiT-3's attention: projections and norms per modality; every token attends to all tokens."""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.models.earlier import has_earlier, with_earlier
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
    """Norm, projections with biases on all three, attention over the sequence, norm, projection.

    The bias on keys stays: it differs between modalities, so the softmax does not cancel it.
    """

    heads: int
    block: int
    dtype: jnp.dtype
    eps: float
    sub_norm: bool
    implementation: str = "auto"

    @nn.compact
    def __call__(
        self, tokens: Tokens, bias: Float[Array, "H L keys"] | None
    ) -> Float[Array, "B L D"]:
        """Mixes the tokens of each row; ``bias`` is added to the logits."""
        query, key, value = self._projected(tokens)
        width = query.shape[-1]
        implementation = choose_implementation(
            self.implementation,
            query.shape[1],
            width,
            self.heads,
            query.dtype,
            biased=bias is not None,
            masked=tokens.mask is not None,
        )
        valid = tokens.valid
        if has_earlier(self):
            key, value, valid = with_earlier(self, key, value, valid)
        shared = (self.heads, valid, bias, tokens.mask, implementation)
        if implementation == "fused":
            projected = group_by_lanes(query, key, value, self.heads)
            mixed = attention(projected, jnp.zeros(3 * width), *shared)
        else:
            mixed = attention_by_parts(query, key, value, *shared)
        mixed, out = dataclasses.replace(tokens, x=mixed), []
        for modality, _ in tokens.layout:
            x = mixed.segment(modality)
            if self.sub_norm:
                x = LayerNorm(self.dtype, self.eps, name=f"{modality}_inner_norm")(x)
            init, axes = beit_init(self.block), ("heads", "embed")
            out.append(Linear(width, axes, self.dtype, init, name=f"{modality}_out")(x))
        return concatenate_axis1(out)

    def _projected(self, tokens: Tokens) -> list[Float[Array, "B L D"]]:
        """Returns queries, keys and values of all tokens."""
        width = tokens.x.shape[-1]
        linear = functools.partial(Linear, width, ("embed", "heads"), self.dtype)
        parts: dict[str, list[Array]] = {"query": [], "key": [], "value": []}
        for modality, _ in tokens.layout:
            x = LayerNorm(self.dtype, self.eps, name=f"{modality}_norm")(tokens.segment(modality))
            for part, arrays in parts.items():
                arrays.append(linear(name=f"{modality}_{part}")(x))
        return [concatenate_axis1(arrays) for arrays in parts.values()]
