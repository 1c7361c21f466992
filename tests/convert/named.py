"""Files of other programs as their lists of names say, with random content."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Named:
    """A file as it is opened: arrays (zeros where there are none), shapes and notes."""

    arrays: dict
    shapes: dict
    metadata: dict = dataclasses.field(default_factory=dict)

    def __getitem__(self, name):
        return self.arrays.get(name, np.zeros(self.shapes[name], np.float32))


def randomised(shapes, seed=0):
    """Weights of a size that keeps activations in range, norms around one, biases and tables that can be seen."""
    rng = np.random.default_rng(seed)
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    for name, value in tensors.items():
        if "norm" in name.lower() and name.endswith("weight"):
            value += 1
        elif value.ndim in (2, 4) and "table" not in name and "embeddings" not in name:
            value /= np.float32(value[0].size) ** 0.5
    return tensors
