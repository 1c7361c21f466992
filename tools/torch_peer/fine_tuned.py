"""What the fine-tuned networks in PyTorch share."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tools.torch_peer.peer import parameters_of
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.formats.torch_finetuned import parts, table
from vlbeit_jax.convert.formats.torch_module import STANDALONE, model_config
from vlbeit_jax.convert.rules import Table
from vlbeit_jax.tasks import Config

Rows = dict[str, Tensor]


class Loss(nn.Module):
    """Network and loss in one graph without breaks."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, normalise: Callable[[Tensor], Tensor]):
        """Takes the network, the dtype of its matrix products, and the normalisation of pixels."""
        super().__init__()
        self.model, self._dtype, self._normalise = model, dtype, normalise

    def logits(self, rows: Rows) -> Tensor:
        """Returns the network's logits in float32."""
        inputs = {name: rows[name] for name in ("text",) if name in rows}
        if "image" in rows:
            inputs["image"] = self._normalise(rows["image"])
        device = rows["weight"].device.type
        with torch.autocast(device, self._dtype, enabled=self._dtype != torch.float32):
            return self.model(**inputs).float()


def differences(config: Config) -> list[str]:
    """Returns settings with which the two sides would draw different random numbers."""
    stream = getattr(config.task, config.task.schedule)
    return [
        f"task.{config.task.schedule}.{name}={getattr(stream, name)} (the two sides draw different "
        f"random numbers; set --config.task.{config.task.schedule}.{name}=0.0)"
        for name in ("mixup", "cutmix", "erase")
        if getattr(stream, name, 0)
    ]


def network_of(
    task: Any, name: str, described: dict[str, Any]
) -> tuple[nn.Module, Table, Callable[[Tensor], Tensor]]:
    """Returns a network, the table from JAX's parameters to it, and the normalisation of pixels.

    Args:
      task: its settings.
      name: of the network's class in vlbeit_finetuned.py.
      described: what that class needs beside the backbone.
    """
    names = parameters_of(task)
    with verify.importable(STANDALONE):
        module: Any = verify.module_of(STANDALONE / "vlbeit_finetuned.py")
        backbone_module = sys.modules["vlbeit_torch"]
    # torch.compile looks modules up by name when it compiles, which it does in the first step.
    sys.modules["vlbeit_torch"] = backbone_module
    backbone = parts(task.model.depth, names)
    model = getattr(module, name)(model_config(task.model), backbone | described)
    return model, table(task.model, task.network, names), module.normalise
