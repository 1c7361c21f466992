"""Classification of images or texts in PyTorch."""

from typing import Any

import torch
from torch.nn import functional

from tools.torch_peer.fine_tuned import Loss, Rows, differences, network_of
from tools.torch_peer.peer import Metrics, Peer
from vlbeit_jax.objectives.supervised import CLASS
from vlbeit_jax.tasks import Config

__all__ = ["build", "differences"]


class ClassLoss(Loss):
    """Cross-entropy, as in ``objectives.supervised``."""

    def __init__(self, smoothing: float, *rest: Any):
        """Takes the smoothing of labels, and what every loss takes."""
        super().__init__(*rest)
        self.smoothing = smoothing

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


def build(config: Config, frozen: Any, dtype: torch.dtype) -> Peer:
    """See ``peer.PeerModule``."""
    task = config.task
    described = {
        "modality": str(task.modality),
        "pool": task.pool,
        "norm_eps": task.model.norm_eps,
        "classes": range(task.num_classes),
    }
    model, table, normalise = network_of(task, "Classifier", described)
    return Peer(model, table, {task.schedule: ClassLoss(task.smoothing, model, dtype, normalise)})
