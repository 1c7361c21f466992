"""The train step of masked prediction in PyTorch, written for speed.

It has the parameters, inputs, targets, losses, metrics, clipping and AdamW of JAX's step. Attention
is ``scaled_dot_product_attention`` and AdamW is fused. bfloat16 comes from autocast, and products
that stay float32 on a GPU use TF32. The frozen visual tokenizer is cast to bfloat16 once.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn

from tools.torch_peer.stream_loss import StreamLoss
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.formats.torch_module import STANDALONE, model_config, visual_config
from vlbeit_jax.convert.formats.torch_tables import model_table, vqkd_table
from vlbeit_jax.convert.rules import Arrays, Table, export
from vlbeit_jax.convert.source import CODEBOOK
from vlbeit_jax.convert.verify import module_of
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.objectives.masked_prediction import TERMS
from vlbeit_jax.tasks import Config
from vlbeit_jax.training.optimizer import learning_rate
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.schedule import Schedule
from vlbeit_jax.training.state import declarations

Tree = Any


def arrays_of(*trees: Tree) -> dict[str, np.ndarray]:
    """Returns the leaves of trees by name, copied to float32; no name may be in two trees."""
    leaves = [leaf for tree in trees for leaf in jax.tree_util.tree_leaves_with_path(tree)]
    return {leaf_name(path): np.array(leaf, np.float32) for path, leaf in leaves}


class TorchStep:
    """Sums gradients over streams, clips them and updates the parameters once.

    Attributes:
      name: describes the step in the report.
      model: ``VLBEiT`` of vlbeit_torch.py.
    """

    def __init__(
        self, config: Config, params: Tree, frozen: Tree, steps: int, compiled: bool = False
    ):
        """Copies the weights of JAX's model and of its visual tokenizer.

        Args:
          config: of the run.
          params: of the model.
          frozen: of the visual tokenizer; empty if the rows hold their targets.
          steps: how many steps will be taken.
          compiled: whether to use ``torch.compile``.

        Raises:
          UsageError: JAX runs on a GPU that this build of PyTorch does not see.
        """
        module = module_of(STANDALONE / "vlbeit_torch.py")
        table, optimizer = model_table(config.task.model), config.optimizer
        dtype = getattr(torch, matmul_dtype(config.task.model.matmul).name)
        self._device = _device()
        torch.set_float32_matmul_precision("high" if self._device.type == "cuda" else "highest")
        network = module.VLBEiT(model_config(config.task.model))
        self.model = _with_weights(network, table, arrays_of(params)).to(self._device)
        tokenizer = _tokenizer(module, config, frozen, dtype).to(self._device) if frozen else None
        self._losses = {
            stream: StreamLoss(config, stream, self.model, tokenizer, module).to(self._device)
            for stream in Schedule.parse(config.task.schedule).streams
        }
        if compiled:
            for loss in self._losses.values():
                loss.compile(fullgraph=True, dynamic=False)
        self._optimizer = torch.optim.AdamW(
            _by_decay(self.model, table, config.task.model, optimizer.weight_decay),
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.eps,
            fused=True,
        )
        self._clip = optimizer.clip_norm or float("inf")
        rate = learning_rate(optimizer, config.run.steps)
        self._rates = iter([float(np.asarray(rate(step))) for step in range(steps)])
        kind = f"{'torch.compile' if compiled else 'eager'}, {str(dtype).removeprefix('torch.')}"
        self.name = (
            f"PyTorch {torch.__version__} on {self._device.type}: {kind}, "
            "scaled_dot_product_attention, fused AdamW"
        )

    def batch(self, rows: Mapping[str, Any]) -> dict[str, Tensor]:
        """Copies JAX's batch to PyTorch's device: channels first, indices as int64."""
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
        for stream in (stream for stream in TERMS if stream in batches):
            losses, others = self._losses[stream](batches[stream])
            torch.stack(list(losses.values())).sum().backward()
            metrics |= others | {name: loss.detach() for name, loss in losses.items()}
        # PyTorch leaves the gradient of an unused expert unset, and AdamW would then skip its
        # decay. JAX's gradient is zero there, and the parameter decays.
        for parameter in self.model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        metrics["grad_norm"] = nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        rate = next(self._rates)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        return metrics

    def finish(self) -> None:
        """Waits for all steps."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def peak_memory(self) -> int | None:
        """Returns the most bytes that tensors used at once; None on a CPU, where it is unknown."""
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


def _tokenizer(module: ModuleType, config: Config, frozen: Tree, dtype: torch.dtype) -> Any:
    """The visual tokenizer; its Transformer's matrices are cast to ``dtype``, as in JAX.

    The rest stays float32, because codes are chosen in float32.
    """
    visual = config.task.tokenizer_model
    arrays = arrays_of(frozen["params"], {CODEBOOK: frozen[CODEBOOK]})
    network = _with_weights(
        module.VisualTokenizer(visual_config(visual)), vqkd_table(visual), arrays
    )
    for part in network.encoder.modules():
        if isinstance(part, nn.Linear):
            part.to(dtype)
    return network.requires_grad_(False)


def _with_weights(network: Any, table: Table, arrays: Arrays) -> Any:
    tensors = {
        name: torch.from_numpy(np.array(value)) for name, value in export(table, arrays).items()
    }
    network.load_state_dict(tensors, strict=True)
    return network


def _by_decay(
    network: nn.Module, table: Table, config: ModelConfig, decay: float
) -> list[dict[str, Any]]:
    """AdamW's parameter groups: what decays in JAX decays here."""
    info = declarations(lambda key: VLBEiT(config).init(key, method="init_all")["params"]).info
    decays = {
        leaf_name(path): declared.decay
        for path, declared in jax.tree_util.tree_leaves_with_path(info)
    }
    decayed = {
        name
        for rule in table.rules
        if any(decays[parameter] for parameter in rule.jax)
        for name in rule.torch
    }
    named = dict(network.named_parameters())
    return [
        {"params": [named[name] for name in named if name in decayed], "weight_decay": decay},
        {"params": [named[name] for name in named if name not in decayed], "weight_decay": 0.0},
    ]
