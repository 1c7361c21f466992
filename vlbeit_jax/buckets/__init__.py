"""Google Cloud Storage: paths, claims and growing files. vlbeit_jax/places.py uses it."""
