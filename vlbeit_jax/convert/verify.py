"""Both sides on the same random inputs: images, texts and pairs, with masks and padding, in float32."""

import dataclasses
import importlib.util
import json
import pathlib
import sys
import zlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.convert.rules import Tensors
from vlbeit_jax.convert.source import CODEBOOK, Visual, as_tree
from vlbeit_jax.models.dalle import DalleConfig, DalleEncoder
from vlbeit_jax.models.vlbeit import Inputs, VLBEiT
from vlbeit_jax.tasks.vqkd import make_tokenizer
from vlbeit_jax.types import Modality, Special

LIMIT = 1e-4
BATCH = 2
VERIFY_FILE = "verify.json"
Batch = dict[str, np.ndarray]


class Differences:
    """Largest absolute and relative difference of every case; relative to the largest expected value."""

    def __init__(self, peer: str, pad: int = Special.PAD):
        """None yet; ``peer`` says what JAX is compared with, ``pad`` which word piece is padding."""
        self.peer, self.pad = peer, pad
        self.cases: dict[str, dict[str, float]] = {}

    def add(self, name: str, found: np.ndarray, wanted: np.ndarray) -> None:
        """One case."""
        assert found.shape == wanted.shape, (name, found.shape, wanted.shape)
        difference = float(np.abs(found.astype(np.float64) - wanted).max())
        self.cases[name] = {
            "max_abs": difference,
            "max_rel": difference / max(float(np.abs(wanted).max()), 1e-30),
        }

    def add_output(
        self,
        name: str,
        found: Mapping[str, np.ndarray],
        wanted: Mapping[str, np.ndarray],
        batch: Batch,
    ) -> None:
        """What a model returned for a batch; states of padding are left out."""
        assert set(found) == set(wanted), (name, sorted(found), sorted(wanted))
        for part, value in wanted.items():
            real = batch["text"][:, 1:] != self.pad if part == "text" else ...
            self.add(f"{name}/{part}", found[part][real], value[real])

    def summary(self) -> dict[str, Any]:
        """The content of ``verify.json``."""
        worst = {
            kind: float(np.max([case[kind] for case in self.cases.values()]))
            for kind in ("max_abs", "max_rel")
        }
        return worst | {"limit": LIMIT, "peer": self.peer, "cases": self.cases}

    def write(self, folder: pathlib.Path) -> bool:
        """Leaves ``verify.json`` and says whether all is within the limit (a difference that is no number is not)."""
        summary = self.summary()
        (folder / VERIFY_FILE).write_text(json.dumps(summary, indent=1) + "\n")
        return summary["max_abs"] <= LIMIT


def images(side: int, seed: int = 0) -> np.ndarray:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (BATCH, side, side, 3), np.uint8)


def batches(config: ModelConfig, seed: int = 0) -> dict[str, Batch]:
    """Random batches by name: every stream, images also unmasked, texts of different lengths."""
    rng = np.random.default_rng(seed)
    image = {"image": images(config.image_size, seed)}
    masked = np.stack(
        [
            rng.permutation(config.patches)[: max(1, round(0.4 * config.patches))]
            for _ in range(BATCH)
        ]
    )
    length = min(config.text_positions, 59)
    text = rng.integers(Special.MASK, config.vocabulary, (BATCH, length))
    text[:, 0] = Special.CLS
    ends = np.linspace(max(3, length // 3), length, BATCH).astype(int)
    for row, end in zip(text, ends, strict=True):
        row[end - 1], row[end:] = Special.SEP, config.pad
    positions = np.stack(
        [1 + rng.permutation(ends.min() - 2)[: max(1, ends.min() // 3)] for _ in range(BATCH)]
    )
    words = {"text": text, "text_masked": positions}
    return {
        "image": image,
        "image_masked": image | {"masked_patches": masked},
        "text": words,
        "pair": image | {"masked_patches": masked} | words,
    }


def parameters(leaves: Tensors) -> Any:
    """The whole tree."""
    return as_tree({name: leaves[name] for name in leaves.shapes})


def ours(config: ModelConfig, params: Any, batch: Batch) -> dict[str, np.ndarray]:
    """What JAX returns: CLS states, states and logits by modality, named as in ``standalone``."""
    network = VLBEiT(dataclasses.replace(config, matmul="float32"))
    inputs = Inputs(**{name: jnp.asarray(value) for name, value in batch.items()})
    with jax.default_matmul_precision("highest"):
        tokens = jax.jit(lambda params: network.apply({"params": params}, inputs, method="encode"))(
            params
        )
        logits = jax.jit(lambda params: network.apply({"params": params}, inputs))(params)
    found = {}
    for modality, _ in tokens.layout:
        name = "image" if modality is Modality.VISION else "text"
        states = np.asarray(tokens.segment(modality))
        found |= {f"{name}_cls": states[:, 0], name: states[:, 1:]}
        if modality in logits:
            found[f"{name}_logits"] = np.asarray(logits[modality])[
                ..., : config.codes if name == "image" else config.vocabulary
            ]
    return found


def visual_tokens(visual: Visual, image: np.ndarray) -> dict[str, np.ndarray]:
    """By what a visual tokenizer chooses tokens, in JAX: VQ-KD's features, DALL-E's logits."""
    if isinstance(visual.config, DalleConfig):
        network, method, name = DalleEncoder(visual.config, "float32"), "__call__", "logits"
    else:
        network, method, name = (
            make_tokenizer(dataclasses.replace(visual.config, matmul="float32")),
            "features",
            "features",
        )
    params = as_tree(
        {name: visual.params[name] for name in visual.params.shapes if name != CODEBOOK}
    )
    with jax.default_matmul_precision("highest"):
        return {
            name: np.asarray(
                jax.jit(
                    lambda params: network.apply(
                        {"params": params}, jnp.asarray(image), method=method
                    )
                )(params)
            )
        }


def module_of(path: pathlib.Path) -> ModuleType:
    """A Python file as a module, listed under a name of its own: torch.compile looks up by it what functions refer to."""
    name = f"{path.stem}_{zlib.crc32(str(path.resolve()).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
