"""The train step of masked prediction in PyTorch, with ``standalone/vlbeit_torch.py``: what JAX's is timed against.

The same parameters, inputs, targets, loss, metrics, clipping and AdamW. Eager in float32; bfloat16 is autocast, and on a GPU all is
compiled.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbeit_jax.config import Config
from vlbeit_jax.convert.formats.torch_module import STANDALONE, model_config, visual_config
from vlbeit_jax.convert.formats.torch_tables import model_table, vqkd_table
from vlbeit_jax.convert.rules import Table, exported
from vlbeit_jax.convert.source import CODEBOOK
from vlbeit_jax.convert.verify import module_of
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.objectives.masked_prediction import terms_of
from vlbeit_jax.training.checkpoint import leaf_name
from vlbeit_jax.training.optimizer import DECAYED, learning_rate
from vlbeit_jax.types import Modality, Stream

Tree = Any


class Arrays:
    """The leaves of trees by name, as tables of rules read them; copies in float32."""

    def __init__(self, *trees: Tree):
        """Names of several trees do not meet."""
        leaves = [leaf for tree in trees for leaf in jax.tree_util.tree_leaves_with_path(tree)]
        self._arrays = {leaf_name(path): np.array(leaf, np.float32) for path, leaf in leaves}
        self.shapes = {name: value.shape for name, value in self._arrays.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        """One array."""
        return self._arrays[name]


class TorchStep:
    """``step(batches) -> metrics``: gradients stream by stream, summed, clipped, one update.

    Attributes:
      name: what it is, in words.
      model: of ``vlbeit_torch.py``.
    """

    def __init__(self, config: Config, params: Tree, frozen: Tree, steps: int):
        """Takes over the weights of JAX's model and of its visual tokenizer, to take so many steps."""
        module, table, optimizer = module_of(STANDALONE / "vlbeit_torch.py"), model_table(config.model), config.optimizer
        self._device = torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")
        self._normalise: Callable[[Tensor], Tensor] = module.normalise
        self._dtype = getattr(torch, matmul_dtype(config.model.matmul).name)
        self.model = _with_weights(module.VLBEiT(model_config(config.model)), table, Arrays(params)).to(self._device)
        if frozen:
            visual = config.visual_tokenizer
            arrays = Arrays(frozen["params"], {CODEBOOK: frozen[CODEBOOK]})
            tokenizer = module.VisualTokenizer(visual_config(visual))
            self._encode: Callable[[Tensor], Tensor] = _with_weights(tokenizer, vqkd_table(visual), arrays).to(self._device).encode
        self._optimizer = torch.optim.AdamW(
            _by_decay(self.model, table, optimizer.weight_decay), betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.eps, fused=True
        )
        self._clip, rate = optimizer.clip_norm or float("inf"), learning_rate(optimizer, config.run.steps)
        self._rates = iter([float(np.asarray(rate(step))) for step in range(steps)])
        sizes = {Modality.VISION: config.model.codes, Modality.LANGUAGE: config.model.vocabulary}
        terms = [term for stream in Stream for term in terms_of(stream).items()]
        self._counts = {name: torch.zeros(sizes[modality], device=self._device) for modality, name in terms}
        compiled = self._device.type == "cuda"
        if compiled:
            self.model.compile()
        self.name = f"PyTorch {torch.__version__} on {self._device}, {'compiled' if compiled else 'eager'}, {self._dtype}"

    def batch(self, rows: Mapping[str, Any]) -> dict[str, Tensor]:
        """JAX's batch as tensors where the step runs: images with channels first, indices as int64."""
        found = {name: torch.from_numpy(np.array(value)).to(self._device) for name, value in rows.items() if name != "uid"}
        found = {name: value.long() if value.dtype == torch.int32 else value for name, value in found.items()}
        return found | ({"image": found["image"].permute(0, 3, 1, 2).contiguous()} if "image" in found else {})

    def __call__(self, batches: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """One step, finished when it returns; metrics are named as JAX's."""
        metrics: dict[str, Tensor] = {}
        for stream in (stream for stream in Stream if stream in batches):
            self._loss(stream, batches[stream], metrics).backward()
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad  # An expert that was not asked.
        metrics["grad_norm"] = nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        rate = next(self._rates)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return metrics

    def _loss(self, stream: Stream, rows: Mapping[str, Tensor], metrics: dict[str, Tensor]) -> Tensor:
        inputs = {name: rows[name] for name in ("image_masked", "text", "text_masked") if name in rows}
        if "image" in rows:
            inputs["image"] = self._normalise(rows["image"])
        total = torch.zeros((), device=self._device)
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            found = self.model(**inputs)
            for modality, name in terms_of(stream).items():
                if modality is Modality.VISION:
                    targets = rows["image_targets"] if "image_targets" in rows else self._targets(inputs["image"], rows["image_masked"])
                    logits, weights = found.image_logits, rows["weight"][:, None].expand_as(targets)
                else:
                    logits, targets, weights = found.text_logits, rows["text_targets"], rows["text_weights"] * rows["weight"][:, None]
                losses = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
                loss = (losses * weights.flatten()).sum() / weights.sum()
                right, frequent = logits.argmax(dim=-1) == targets, self._counts[name].argmax() == targets
                self._counts[name].index_add_(0, targets.flatten(), weights.flatten())
                metrics[f"{name}/loss"] = loss.detach()
                metrics[f"{name}/accuracy"] = (right * weights).sum() / weights.sum()
                metrics[f"{name}/unigram"] = (frequent * weights).sum() / weights.sum()
                total = total + loss
        return total

    def _targets(self, image: Tensor, masked: Tensor) -> Tensor:
        with torch.no_grad():
            return self._encode(image).gather(1, masked)


def _with_weights(network: Any, table: Table, arrays: Arrays) -> Any:
    network.load_state_dict({each.name: torch.from_numpy(np.array(each.read())) for each in exported(table, arrays)}, strict=True)
    return network


def _by_decay(network: nn.Module, table: Table, decay: float) -> list[dict[str, Any]]:
    """The optimizer's groups: what decays in JAX decays here."""
    decayed = {name for rule in table.rules if {our.split("/")[-1] for our in rule.ours} & DECAYED for name in rule.theirs}
    named = dict(network.named_parameters())
    return [
        {"params": [named[name] for name in named if name in decayed], "weight_decay": decay},
        {"params": [named[name] for name in named if name not in decayed], "weight_decay": 0.0},
    ]
