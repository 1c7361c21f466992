"""The train step in PyTorch, written for speed.

It has the parameters, inputs, targets, losses, metrics, clipping and AdamW of JAX's step. It uses
``scaled_dot_product_attention`` and fused AdamW. bfloat16 products come from autocast. On a GPU,
products that stay float32 use TF32. The frozen visual tokenizer is cast to bfloat16 once.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn

from tools.torch_peer.peer import parameters_of, peer_of
from tools.torch_peer.weights import arrays_of, with_weights
from vlbeit_jax.convert.rules import Table
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import Config
from vlbeit_jax.training.optimizer import learning_rate, rate_factors
from vlbeit_jax.training.state import declarations

FACTOR = "factor"  # Key of a parameter group: factor of its learning rate.


class TorchStep:
    """Sums gradients over streams, clips them and updates the parameters once.

    Attributes:
      name: describes the step in the report.
      model: the network.
      dtype: dtype of the network's matrix products.
    """

    def __init__(
        self, config: Config, params: Tree, frozen: Tree, steps: int, compiled: bool = False
    ):
        """Copies JAX's weights.

        Args:
          config: configuration of the run.
          params: JAX's trained parameters.
          frozen: JAX's frozen parameters.
          steps: number of steps that will be taken.
          compiled: whether to use ``torch.compile``.

        Raises:
          UsageError: JAX runs on a GPU that this build of PyTorch does not see.
        """
        optimizer = config.optimizer
        self.dtype = getattr(torch, matmul_dtype(config.task.model.matmul).name)
        self._device = _device()
        torch.set_float32_matmul_precision("high" if self._device.type == "cuda" else "highest")
        peer = peer_of(config).build(config, frozen, self.dtype)
        self.model = with_weights(peer.model, peer.table, arrays_of(params)).to(self._device)
        self._losses = {name: loss.to(self._device) for name, loss in peer.losses.items()}
        if compiled:
            for loss in self._losses.values():
                loss.compile(fullgraph=True, dynamic=False)
        self._optimizer = torch.optim.AdamW(
            _groups(self.model, peer.table, config),
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.eps,
            fused=True,
        )
        self._clip = optimizer.clip_norm or float("inf")
        rate = learning_rate(optimizer, config.run.steps)
        self._rates = iter([float(np.asarray(rate(step))) for step in range(steps)])
        kind = (
            f"{'torch.compile' if compiled else 'eager'}, {str(self.dtype).removeprefix('torch.')}"
        )
        self.name = (
            f"PyTorch {torch.__version__} on {self._device.type}: {kind}, "
            "scaled_dot_product_attention, fused AdamW"
        )

    def batch(self, rows: Mapping[str, Any]) -> dict[str, Tensor]:
        """Copies JAX's batch to PyTorch's device, with channels first and indices as int64."""
        tensors = {}
        for name, value in rows.items():
            if name == "uid":
                continue
            tensor = torch.from_numpy(np.array(value)).to(self._device)
            tensors[name] = tensor.long() if tensor.dtype == torch.int32 else tensor
        if "image" in tensors:
            tensors["image"] = tensors["image"].permute(0, 3, 1, 2).contiguous()
        return tensors

    def __call__(self, batches: Mapping[Any, dict[str, Tensor]]) -> dict[str, Tensor]:
        """Takes one step; returns metrics under the names that JAX's step uses.

        A GPU may still be working when this returns; ``finish`` waits for it.
        """
        metrics: dict[str, Tensor] = {}
        for stream in (stream for stream in self._losses if stream in batches):
            losses, others = self._losses[stream](batches[stream])
            torch.stack(list(losses.values())).sum().backward()
            metrics |= others | {name: loss.detach() for name, loss in losses.items()}
        # PyTorch leaves the gradients of an unused expert unset, and AdamW would then not decay it.
        # JAX's gradients are zero there, and the expert decays.
        for parameter in self.model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        metrics["grad_norm"] = nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        rate = next(self._rates)
        for group in self._optimizer.param_groups:
            group["lr"] = group[FACTOR] * rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        return metrics

    def finish(self) -> None:
        """Waits for all steps."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def peak_memory(self) -> int | None:
        """Returns the most bytes that tensors held at once; None on a CPU, where it is unknown."""
        return torch.cuda.max_memory_allocated() if self._device.type == "cuda" else None


def _device() -> torch.device:
    if jax.default_backend() == "cpu":
        return torch.device("cpu")
    if jax.default_backend() != "gpu" or not torch.cuda.is_available():
        raise UsageError(
            f"JAX runs on {jax.devices()[0].device_kind}, but PyTorch {torch.__version__} sees no "
            "such device. Install PyTorch for CUDA, or compare on the CPU with JAX_PLATFORMS=cpu"
        )
    return torch.device("cuda")


def _groups(network: nn.Module, table: Table, config: Config) -> list[dict[str, Any]]:
    """Returns AdamW's parameter groups: by weight decay, and by factor of the learning rate."""
    declared = parameters_of(config.task)
    info = declarations(config.task.init).info
    factors = rate_factors(config.optimizer, info)
    named = dict(network.named_parameters())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for rule in table.rules:
        decays = any(declared[name].decay for name in rule.jax)
        # Parameters that PyTorch stores in one tensor belong to one layer, so they share a factor.
        (factor,) = {factors[name] for name in rule.jax}
        own = groups.setdefault((config.optimizer.weight_decay if decays else 0.0, factor), [])
        own.extend(named[name] for name in rule.torch)
    return [
        {"params": parameters, "weight_decay": decay, FACTOR: factor}
        for (decay, factor), parameters in groups.items()
    ]
