"""Figures that judge a run, in plain NumPy."""
