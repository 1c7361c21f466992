"""Losses and metrics of masked prediction in PyTorch."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.torch_peer.peer import Peer
from tools.torch_peer.weights import arrays_of, with_weights
from vlbeit_jax.convert.formats.torch_module import STANDALONE, model_config, visual_config
from vlbeit_jax.convert.formats.torch_tables import model_table, vqkd_table
from vlbeit_jax.convert.source import CODEBOOK
from vlbeit_jax.convert.verify import module_of
from vlbeit_jax.objectives.masked_prediction import TERMS
from vlbeit_jax.tasks import Config
from vlbeit_jax.training.schedule import Schedule
from vlbeit_jax.types import Modality


class StreamLoss(nn.Module):
    """Computes the losses and metrics of one stream.

    Forward pass, targets and losses form one graph without breaks.
    """

    def __init__(
        self,
        config: Config,
        stream: str,
        model: nn.Module,
        tokenizer: Any,
        module: ModuleType,
        dtype: torch.dtype,
    ):
        """Shares ``model`` and ``tokenizer`` with the other streams.

        Args:
          config: configuration of the run.
          stream: name of the stream.
          model: ``VLBEiT`` of vlbeit_torch.py.
          tokenizer: the visual tokenizer; None if the rows hold their targets.
          module: vlbeit_torch.py itself.
          dtype: dtype of matrix products.
        """
        super().__init__()
        self.model, self.tokenizer, self._normalise = model, tokenizer, module.normalise
        self._terms = [
            (modality is Modality.VISION, name) for modality, name in TERMS[stream].items()
        ]
        self._dtype = dtype
        for is_image, name in self._terms:
            classes = config.task.model.codes if is_image else config.task.model.vocabulary
            self.register_buffer(_counts_of(name), torch.zeros(classes))

    def forward(self, rows: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Returns losses and other metrics, under the names that JAX's step uses."""
        device = rows["weight"].device
        inputs = {
            name: rows[name] for name in ("masked_patches", "text", "text_masked") if name in rows
        }
        if "image" in rows:
            inputs["image"] = self._normalise(rows["image"])
        losses, metrics = {}, {}
        with torch.autocast(device.type, self._dtype, enabled=self._dtype != torch.float32):
            output = self.model(**inputs)
            for is_image, name in self._terms:
                if is_image:
                    logits, targets = output.image_logits, self._image_targets(inputs, rows)
                    weights = rows["weight"][:, None].expand_as(targets)
                else:
                    logits, targets = output.text_logits, rows["text_targets"]
                    weights = rows["text_weights"] * rows["weight"][:, None]
                cross_entropy = functional.cross_entropy(
                    logits.float().flatten(0, 1), targets.flatten(), reduction="none"
                )
                total = weights.sum()
                losses[f"{name}/loss"] = (cross_entropy * weights.flatten()).sum() / total
                # The unigram baseline predicts the most frequent target of all earlier steps.
                counts = self.get_buffer(_counts_of(name))
                is_correct = logits.detach().argmax(dim=-1) == targets
                is_frequent = counts.argmax() == targets
                counts.index_add_(0, targets.flatten(), weights.flatten())
                metrics[f"{name}/accuracy"] = (is_correct * weights).sum() / total
                metrics[f"{name}/unigram"] = (is_frequent * weights).sum() / total
        return losses, metrics

    def _image_targets(self, inputs: dict[str, Tensor], rows: dict[str, Tensor]) -> Tensor:
        """Returns the visual tokens of the masked patches."""
        if self.tokenizer is None:
            return rows["image_targets"]
        with torch.no_grad():
            return self.tokenizer.encode(inputs["image"]).gather(1, rows["masked_patches"])


def _counts_of(term: str) -> str:
    return f"{term}_counts"


def differences(config: Config) -> list[str]:
    """Returns nothing: both sides compute the same with every setting."""
    return []


def build(config: Config, frozen: Any, dtype: torch.dtype) -> Peer:
    """See ``peer.PeerModule``."""
    module, task = module_of(STANDALONE / "vlbeit_torch.py"), config.task
    model = module.VLBEiT(model_config(task.model))
    tokenizer = _tokenizer(module, config, frozen, dtype) if frozen else None
    used = Schedule.parse(task.schedule).streams
    losses = {
        stream: StreamLoss(config, stream, model, tokenizer, module, dtype)
        for stream in TERMS
        if stream in used
    }
    return Peer(model, model_table(task.model), losses)


def _tokenizer(module: ModuleType, config: Config, frozen: Any, dtype: torch.dtype) -> Any:
    """Returns the visual tokenizer; its Transformer's matrices are cast to ``dtype``, as in JAX.

    The rest stays float32, because codes are chosen in float32.
    """
    visual = config.task.tokenizer_model
    arrays = arrays_of(frozen["params"], {CODEBOOK: frozen[CODEBOOK]})
    network = with_weights(
        module.VisualTokenizer(visual_config(visual)), vqkd_table(visual), arrays
    )
    for part in network.encoder.modules():
        if isinstance(part, nn.Linear):
            part.to(dtype)
    return network.requires_grad_(False)
