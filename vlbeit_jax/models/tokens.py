"""One token array with a static layout: which run of tokens is of which modality."""

import jax.numpy as jnp
from flax import struct

from vlbeit_jax.models.layers import concatenate_axis1
from vlbeit_jax.shapes import Array, Bool, Float
from vlbeit_jax.types import Layout, Modality


@struct.dataclass
class Tokens:
    """Tokens of a batch; ``valid`` says which may be attended to (None: all)."""

    x: Float[Array, "B L D"]
    valid: Bool[Array, "B L"] | None
    layout: Layout = struct.field(pytree_node=False)

    def segment(self, modality: Modality) -> Float[Array, "B S D"]:
        """The tokens of one modality."""
        start = 0
        for found, length in self.layout:
            if found is modality:
                return self.x[:, start : start + length]
            start += length
        raise KeyError(modality)


def join(parts: list[Tokens]) -> Tokens:
    """Parts of one batch in sequence; tokens without a validity are all valid."""
    valid = None
    if any(part.valid is not None for part in parts):
        valid = concatenate_axis1(
            [jnp.ones(p.x.shape[:2], bool) if p.valid is None else p.valid for p in parts]
        )
    return Tokens(
        concatenate_axis1([p.x for p in parts]), valid, sum((p.layout for p in parts), ())
    )
