"""VL-BEiT in JAX: one Multiway Transformer pretrained by masked prediction (arXiv 2206.01127)."""

__version__ = "0.2.0"
