"""Files of other programs, made from lists of their published names."""

import numpy as np

from vlbeit_jax.convert.read_tensors import TensorFile


def tensor_file(shapes, arrays=None, metadata=None):
    """A file with these shapes; zeros where ``arrays`` has none of the shape."""
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name, value in (arrays or {}).items():
        if name in tensors and tensors[name].shape == value.shape:
            tensors[name] = value
    return TensorFile(tensors, metadata or {})


def randomised(shapes, seed=0):
    """Weights that keep activations in range, norms around one, visible biases and tables."""
    rng = np.random.default_rng(seed)
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    for name, value in tensors.items():
        if "norm" in name.lower() and name.endswith("weight"):
            value += 1
        elif value.ndim in (2, 4) and "table" not in name and "embeddings" not in name:
            value /= np.float32(value[0].size) ** 0.5
    return tensors
