"""Copies JAX's weights into PyTorch's modules."""

from typing import Any

import jax
import numpy as np
import torch

from vlbeit_jax.convert.rules import Arrays, Table, export
from vlbeit_jax.shapes import Tree
from vlbeit_jax.training.param_names import leaf_name


def arrays_of(*trees: Tree) -> dict[str, np.ndarray]:
    """Returns the leaves of all trees by name, copied to float32; names must not repeat."""
    leaves = [leaf for tree in trees for leaf in jax.tree_util.tree_leaves_with_path(tree)]
    return {leaf_name(path): np.array(leaf, np.float32) for path, leaf in leaves}


def with_weights(network: Any, table: Table, arrays: Arrays) -> Any:
    """Returns the module after setting every one of its parameters."""
    tensors = {
        name: torch.from_numpy(np.array(value)) for name, value in export(table, arrays).items()
    }
    network.load_state_dict(tensors, strict=True)
    return network
