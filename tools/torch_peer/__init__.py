"""Times our train step beside the same step in PyTorch; nothing in vlbeit_jax imports this."""
