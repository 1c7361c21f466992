"""Keys and values of tokens that were read before, for queries of tokens that come later.

An image is read once, and a text about it is then written piece by piece: its pieces see the
image's keys and values, which are not computed again. That is exact where the earlier tokens see
none of the later ones. Flax holds the arrays as a collection of variables:

    _, read = network.apply({"params": params}, ..., mutable=[EARLIER])
    network.apply({"params": params, **read}, ...)
"""

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.shapes import Array, Bool, Float

EARLIER = "earlier"  # The collection.


def has_earlier(module: nn.Module) -> bool:
    """Returns whether an attention keeps its keys and values here, or sees those of before."""
    if module.is_initializing():  # All collections are mutable then.
        return False
    return module.is_mutable_collection(EARLIER) or module.has_variable(EARLIER, "key")


def with_earlier(
    module: nn.Module,
    key: Float[Array, "B L D"],
    value: Float[Array, "B L D"],
    valid: Bool[Array, "B L"] | None,
) -> tuple[Float[Array, "B keys D"], Float[Array, "B keys D"], Bool[Array, "B keys"] | None]:
    """Keeps keys and values, or returns them behind those that were kept, all of which are valid.

    Args:
      module: the attention; ``has_earlier`` is true of it.
      key: of the tokens that are read now.
      value: of the same tokens.
      valid: True where a key may be attended to; None if all may.
    """
    if module.is_mutable_collection(EARLIER):
        module.put_variable(EARLIER, "key", key)
        module.put_variable(EARLIER, "value", value)
        return key, value, valid
    before = module.get_variable(EARLIER, "key")
    if valid is not None:
        valid = jnp.concatenate([jnp.ones(before.shape[:2], bool), valid], axis=1)
    key = jnp.concatenate([before, key], axis=1)
    return key, jnp.concatenate([module.get_variable(EARLIER, "value"), value], axis=1), valid
