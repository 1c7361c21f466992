"""Losses of fine-tuning in PyTorch: classification and question answering."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.torch_peer.peer import Metrics, Peer, parameters_of
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.formats.torch_finetuned import parts, table
from vlbeit_jax.convert.formats.torch_module import STANDALONE, model_config
from vlbeit_jax.models.heads.vqa import EPS
from vlbeit_jax.objectives.answering import ANSWER
from vlbeit_jax.objectives.supervised import CLASS
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


class ClassLoss(Loss):
    """Cross-entropy, as in ``objectives.supervised``."""

    smoothing = 0.0

    def forward(self, rows: Rows) -> tuple[Metrics, Metrics]:
        """Returns the loss and the accuracy."""
        logits, weight = self.logits(rows), rows["weight"]
        loss = functional.cross_entropy(
            logits, rows["label"], reduction="none", label_smoothing=self.smoothing
        )
        right = (logits.detach().argmax(dim=-1) == rows["label"]) * weight
        total = weight.sum()
        losses = {f"{CLASS}/loss": (loss * weight).sum() / total}
        return losses, {f"{CLASS}/accuracy": right.sum() / total}


class AnswerLoss(Loss):
    """Binary cross-entropy with soft scores, as in ``objectives.answering``."""

    def forward(self, rows: Rows) -> tuple[Metrics, Metrics]:
        """Returns the loss and the score of the most likely answers."""
        logits = self.logits(rows)
        targets = torch.zeros_like(logits).scatter_add(1, rows["answers"], rows["scores"])
        loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        weight = rows["weight"] * (rows["scores"].amax(dim=1) > 0)
        best = targets.gather(1, logits.detach().argmax(dim=1, keepdim=True))[:, 0]
        total = weight.sum()
        losses = {f"{ANSWER}/loss": (loss.sum(dim=1) * weight).sum() / total}
        return losses, {f"{ANSWER}/accuracy": (best * weight).sum() / total}


def differences(config: Config) -> list[str]:
    """Returns settings with which the two sides would draw different random numbers."""
    stream = getattr(config.task, config.task.schedule)
    return [
        f"task.{config.task.schedule}.{name}={getattr(stream, name)} (the two sides draw different "
        f"random numbers; set --config.task.{config.task.schedule}.{name}=0.0)"
        for name in ("mixup", "cutmix", "erase")
        if getattr(stream, name, 0)
    ]


def build(config: Config, frozen: Any, dtype: torch.dtype) -> Peer:
    """See ``peer.PeerModule``."""
    task = config.task
    names = parameters_of(task)
    with verify.importable(STANDALONE):
        module: Any = verify.module_of(STANDALONE / "vlbeit_finetuned.py")
        backbone_module = sys.modules["vlbeit_torch"]
    # torch.compile looks modules up by name when it compiles, which it does in the first step.
    sys.modules["vlbeit_torch"] = backbone_module
    shape, backbone = model_config(task.model), parts(task.model.depth, names)
    if task.kind == "vqa":
        network = {"norm_eps": EPS, "answers": range(task.network.answers)}
        model = module.VQA(shape, backbone | network)
        loss: Loss = AnswerLoss(model, dtype, module.normalise)
    else:
        network = {
            "modality": str(task.modality),
            "pool": task.pool,
            "norm_eps": task.model.norm_eps,
            "classes": range(task.num_classes),
        }
        model = module.Classifier(shape, backbone | network)
        loss = ClassLoss(model, dtype, module.normalise)
        loss.smoothing = task.smoothing
    return Peer(model, table(task.model, task.network, names), {task.schedule: loss})
