"""What a task must provide for a comparison of its train step with PyTorch's."""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import torch
from torch import Tensor, nn

from vlbeit_jax.convert.rules import Table
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.params import ParamInfo
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import Config
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.state import declarations

Metrics = dict[str, Tensor]
# By task.kind. To compare another task, add a file with ``build`` and ``differences``.
PEERS = {
    "pretrain": "tools.torch_peer.masked_prediction",
    "image_classification": "tools.torch_peer.classification",
    "text_classification": "tools.torch_peer.classification",
    "vqa": "tools.torch_peer.question_answering",
}


class Peer(NamedTuple):
    """The network in PyTorch, with its losses.

    Attributes:
      model: the network with all trained parameters. Their values are not yet JAX's.
      table: maps JAX's parameters to the model's.
      losses: one module per stream, in the order in which the gradients are summed. A module takes
        rows, and returns losses and other metrics under the names that JAX's step uses. Each stream
        has its own module, so that ``torch.compile`` specialises it for the stream's shapes.
    """

    model: nn.Module
    table: Table
    losses: Mapping[str, nn.Module]


class PeerModule(Protocol):
    """A file in ``PEERS``."""

    @staticmethod
    def differences(config: Config) -> list[str]:
        """Returns the settings with which the two sides would not compute the same."""
        ...

    @staticmethod
    def build(config: Config, frozen: Tree, dtype: torch.dtype) -> Peer:
        """Returns the network with its losses.

        Args:
          config: configuration of the run.
          frozen: JAX's frozen parameters.
          dtype: dtype of matrix products.
        """
        ...


def parameters_of(task: Any) -> dict[str, ParamInfo]:
    """Returns what a task declares about each of its parameters, by name."""
    leaves = jax.tree_util.tree_leaves_with_path(declarations(task.init).info)
    return {leaf_name(path): declared for path, declared in leaves}


def peer_of(config: Config) -> PeerModule:
    """Returns the file that has PyTorch's step for a task.

    Raises:
      UsageError: there is no such file.
    """
    kind = config.task.kind
    if kind not in PEERS:
        raise UsageError(
            f"the step cannot be compared with PyTorch's: task.kind={kind}; PyTorch has a step for "
            f"{', '.join(PEERS)}"
        )
    module: Any = importlib.import_module(PEERS[kind])
    return module
