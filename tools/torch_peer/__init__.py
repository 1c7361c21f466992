"""Times our train step against the same step in PyTorch; nothing in vlbeit_jax imports this."""
