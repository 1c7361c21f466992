"""The networks (flax.linen): parameters and their logical axes."""
