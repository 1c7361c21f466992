"""A trained model as a Python object: ``vlbeit_jax.load`` opens it."""
