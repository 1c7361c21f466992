"""Question answering in PyTorch."""

from typing import Any

import torch
from torch.nn import functional

from tools.torch_peer.fine_tuned import Loss, Rows, differences, network_of
from tools.torch_peer.peer import Metrics, Peer
from vlbeit_jax.models.heads.vqa import EPS
from vlbeit_jax.objectives.answering import ANSWER
from vlbeit_jax.tasks import Config

__all__ = ["build", "differences"]


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


def build(config: Config, frozen: Any, dtype: torch.dtype) -> Peer:
    """See ``peer.PeerModule``."""
    task = config.task
    described = {"norm_eps": EPS, "answers": range(task.network.answers)}
    model, table, normalise = network_of(task, "VQA", described)
    return Peer(model, table, {task.schedule: AnswerLoss(model, dtype, normalise)})
