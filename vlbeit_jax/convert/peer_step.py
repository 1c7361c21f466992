"""The train step of masked prediction in PyTorch, with ``standalone/vlbeit_torch.py``: what JAX's is timed against.

The same parameters, inputs, targets, loss, metrics, clipping and AdamW, as one would write it for speed: attention by
``scaled_dot_product_attention``, fused AdamW, bfloat16 by autocast, TF32 for what stays float32 on a GPU, a tokenizer that is
not trained in bfloat16 once and for all. Compiled, forward, targets and loss of a stream are one graph without a break.
"""

from collections.abc import Mapping
from types import ModuleType
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
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.objectives.masked_prediction import terms_of
from vlbeit_jax.training.checkpoint import leaf_name
from vlbeit_jax.training.optimizer import DECAYED, learning_rate
from vlbeit_jax.training.schedule import Schedule
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


class StreamLoss(nn.Module):
    """``rows -> (losses, metrics)`` of one stream: a module of its own, so that each stream is compiled for its own shapes."""

    def __init__(
        self, config: Config, stream: Stream, model: nn.Module, tokenizer: Any, module: ModuleType
    ):
        """Shares the model and the visual tokenizer (None: targets come with the rows) with the other streams."""
        super().__init__()
        self.model, self.tokenizer, self._normalise = model, tokenizer, module.normalise
        self._terms = [
            (modality is Modality.VISION, name) for modality, name in terms_of(stream).items()
        ]
        self._dtype = getattr(torch, matmul_dtype(config.model.matmul).name)
        for is_image, name in self._terms:
            self.register_buffer(
                _counts_of(name),
                torch.zeros(config.model.codes if is_image else config.model.vocabulary),
            )

    def forward(self, rows: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The stream's losses and other metrics, named as JAX's."""
        device = rows["weight"].device
        inputs = {
            name: rows[name] for name in ("masked_patches", "text", "text_masked") if name in rows
        }
        if "image" in rows:
            inputs["image"] = self._normalise(rows["image"])
        losses, metrics = {}, {}
        with torch.autocast(device.type, self._dtype, enabled=self._dtype != torch.float32):
            found = self.model(**inputs)
            for is_image, name in self._terms:
                if is_image:
                    targets = (
                        rows["image_targets"]
                        if self.tokenizer is None
                        else self._targets(inputs["image"], rows["masked_patches"])
                    )
                    logits, weights = found.image_logits, rows["weight"][:, None].expand_as(targets)
                else:
                    logits, targets, weights = (
                        found.text_logits,
                        rows["text_targets"],
                        rows["text_weights"] * rows["weight"][:, None],
                    )
                each = functional.cross_entropy(
                    logits.float().flatten(0, 1), targets.flatten(), reduction="none"
                )
                losses[f"{name}/loss"] = (each * weights.flatten()).sum() / weights.sum()
                counts = self.get_buffer(_counts_of(name))
                right, frequent = (
                    logits.detach().argmax(dim=-1) == targets,
                    counts.argmax() == targets,
                )
                counts.index_add_(0, targets.flatten(), weights.flatten())
                metrics[f"{name}/accuracy"] = (right * weights).sum() / weights.sum()
                metrics[f"{name}/unigram"] = (frequent * weights).sum() / weights.sum()
        return losses, metrics

    def _targets(self, image: Tensor, masked: Tensor) -> Tensor:
        with torch.no_grad():
            return self.tokenizer.encode(image).gather(1, masked)  # pyright: ignore[reportCallIssue]


class TorchStep:
    """``step(batches) -> metrics``: gradients stream by stream, summed, clipped, one update.

    Attributes:
      name: what it is, in words.
      model: of ``vlbeit_torch.py``.
    """

    def __init__(
        self, config: Config, params: Tree, frozen: Tree, steps: int, compiled: bool = False
    ):
        """Takes over the weights of JAX's model and of its visual tokenizer, to take so many steps.

        Raises:
          UsageError: JAX runs on a GPU that this build of PyTorch does not see.
        """
        module, table, optimizer = (
            module_of(STANDALONE / "vlbeit_torch.py"),
            model_table(config.model),
            config.optimizer,
        )
        self._device, dtype = _device(), getattr(torch, matmul_dtype(config.model.matmul).name)
        torch.set_float32_matmul_precision("high" if self._device.type == "cuda" else "highest")
        self.model = _with_weights(
            module.VLBEiT(model_config(config.model)), table, Arrays(params)
        ).to(self._device)
        tokenizer = _tokenizer(module, config, frozen, dtype).to(self._device) if frozen else None
        self._losses = {
            stream: StreamLoss(
                config, stream, self.model, tokenizer if stream.has_image else None, module
            ).to(self._device)
            for stream in Schedule.parse(config.run.schedule).streams
        }
        if compiled:
            for loss in self._losses.values():
                loss.compile(fullgraph=True, dynamic=False)
        self._optimizer = torch.optim.AdamW(
            _by_decay(self.model, table, optimizer.weight_decay),
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.eps,
            fused=True,
        )
        self._clip, rate = (
            optimizer.clip_norm or float("inf"),
            learning_rate(optimizer, config.run.steps),
        )
        self._rates = iter([float(np.asarray(rate(step))) for step in range(steps)])
        kind = f"{'torch.compile' if compiled else 'eager'}, {str(dtype).removeprefix('torch.')}"
        self.name = f"PyTorch {torch.__version__} on {self._device.type}: {kind}, scaled_dot_product_attention, fused AdamW"

    def batch(self, rows: Mapping[str, Any]) -> dict[str, Tensor]:
        """JAX's batch as tensors where the step runs: images with channels first, indices as int64."""
        found = {
            name: torch.from_numpy(np.array(value)).to(self._device)
            for name, value in rows.items()
            if name != "uid"
        }
        found = {
            name: value.long() if value.dtype == torch.int32 else value
            for name, value in found.items()
        }
        return found | (
            {"image": found["image"].permute(0, 3, 1, 2).contiguous()} if "image" in found else {}
        )

    def __call__(self, batches: Mapping[Any, dict[str, Tensor]]) -> dict[str, Tensor]:
        """One step, which on a GPU may be under way when this returns (``finish``); metrics are named as JAX's."""
        metrics: dict[str, Tensor] = {}
        for stream in (stream for stream in Stream if stream in batches):
            losses, found = self._losses[stream](batches[stream])
            torch.stack(list(losses.values())).sum().backward()
            metrics |= found | {name: loss.detach() for name, loss in losses.items()}
        for parameter in self.model.parameters():
            parameter.grad = (
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            )  # An expert that was not asked.
        metrics["grad_norm"] = nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        rate = next(self._rates)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        return metrics

    def finish(self) -> None:
        """Waits for all steps so far."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def peak_memory(self) -> int | None:
        """Bytes that tensors held at once since the start; None on a CPU, where PyTorch does not count them."""
        return torch.cuda.max_memory_allocated() if self._device.type == "cuda" else None


def _device() -> torch.device:
    if jax.default_backend() == "cpu":
        return torch.device("cpu")
    if jax.default_backend() != "gpu" or not torch.cuda.is_available():
        raise UsageError(
            f"JAX runs on {jax.devices()[0].device_kind}, and PyTorch {torch.__version__} sees no such device; "
            "install a build of PyTorch for CUDA, or compare on the CPU with JAX_PLATFORMS=cpu"
        )
    return torch.device("cuda")


def _counts_of(term: str) -> str:
    return f"{term}_counts"


def _tokenizer(module: ModuleType, config: Config, frozen: Tree, dtype: torch.dtype) -> Any:
    """Matrices of its Transformer in the type of their products, as JAX's are; its codes are chosen in float32."""
    visual = config.visual_tokenizer
    arrays = Arrays(frozen["params"], {CODEBOOK: frozen[CODEBOOK]})
    network = _with_weights(
        module.VisualTokenizer(visual_config(visual)), vqkd_table(visual), arrays
    )
    for part in network.encoder.modules():
        if isinstance(part, nn.Linear):
            part.to(dtype)
    return network.requires_grad_(False)


def _with_weights(network: Any, table: Table, arrays: Arrays) -> Any:
    network.load_state_dict(
        {each.name: torch.from_numpy(np.array(each.read())) for each in exported(table, arrays)},
        strict=True,
    )
    return network


def _by_decay(network: nn.Module, table: Table, decay: float) -> list[dict[str, Any]]:
    """The optimizer's groups: what decays in JAX decays here."""
    decayed = {
        name
        for rule in table.rules
        if {our.split("/")[-1] for our in rule.ours} & DECAYED
        for name in rule.theirs
    }
    named = dict(network.named_parameters())
    return [
        {"params": [named[name] for name in named if name in decayed], "weight_decay": decay},
        {"params": [named[name] for name in named if name not in decayed], "weight_decay": 0.0},
    ]
