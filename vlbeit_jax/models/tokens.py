"""One token array with a static layout: which run of tokens is of which modality."""

import jax.numpy as jnp
from flax import struct

from vlbeit_jax.models.layers import concatenate_axis1
from vlbeit_jax.shapes import Array, Bool, Float
from vlbeit_jax.types import Layout, Modality


@struct.dataclass
class Tokens:
    """Tokens of a batch.

    Attributes:
      x: their states.
      valid: which may be attended to; None: all.
      layout: modality and length of each run of tokens, in sequence.
      mask: True where a query may see a key, the same for all rows; None: everywhere. Keys of
        tokens that were read before (``models.earlier``) come first.
    """

    x: Float[Array, "B L D"]
    valid: Bool[Array, "B L"] | None
    layout: Layout = struct.field(pytree_node=False)
    mask: Bool[Array, "L keys"] | None = None

    def segment(self, modality: Modality) -> Float[Array, "B S D"]:
        """Returns the tokens of one modality.

        Raises:
          KeyError: there are none.
        """
        return self.x[:, self._part(modality)]

    def alone(self, modality: Modality) -> "Tokens":
        """Returns the tokens of one modality, without the others.

        Raises:
          KeyError: there are none.
        """
        part = self._part(modality)
        valid = None if self.valid is None else self.valid[:, part]
        return Tokens(self.x[:, part], valid, ((modality, part.stop - part.start),))

    def _part(self, modality: Modality) -> slice:
        start = 0
        for present, length in self.layout:
            if present is modality:
                return slice(start, start + length)
            start += length
        raise KeyError(modality)


def join(parts: list[Tokens]) -> Tokens:
    """Concatenates parts of one batch; tokens of a part without ``valid`` are all valid."""
    valid = None
    if any(part.valid is not None for part in parts):
        valid = concatenate_axis1(
            [jnp.ones(p.x.shape[:2], bool) if p.valid is None else p.valid for p in parts]
        )
    layout = sum((part.layout for part in parts), ())
    return Tokens(concatenate_axis1([part.x for part in parts]), valid, layout)
