"""Random parameters by name, of sizes that keep a network's activations in range."""

import numpy as np


def random_tree(shapes, seed: int = 0):
    """By name; nothing is left at zero or one, and nothing is so large that logits explode."""
    rng = np.random.default_rng(seed)

    def leaf(name, shape):
        noise = rng.standard_normal(shape, np.float32)
        last = name.split("/")[-1]
        if last in ("kernel", "qkv"):
            return noise / np.float32(shape[0]) ** 0.5
        if last == "out":
            return noise / np.float32(shape[0] * shape[1]) ** 0.5
        if last == "scale":
            return 1 + np.float32(0.3) * noise
        return noise * np.float32(
            {"attention_scale": 0.5, "expert_scale": 0.5, "relative_positions": 1.0}.get(last, 0.2)
        )

    return {name: leaf(name, shape) for name, shape in shapes.items()}
