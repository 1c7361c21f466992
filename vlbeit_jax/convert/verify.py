"""Compares JAX with an export: random images, texts and pairs, masked and padded, in float32."""

import contextlib
import dataclasses
import importlib.util
import json
import pathlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.source import CODEBOOK, Run, Visual, as_tree
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.dalle import DalleConfig, DalleEncoder
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.progress import counted
from vlbeit_jax.tasks.open_vqkd import make_tokenizer
from vlbeit_jax.types import Modality, Special

LIMIT = 1e-4  # Largest absolute difference of an output.
BATCH = 2
MASKED_FRACTION = 0.4  # Of patches; about as many as in pretraining.
VERIFY_FILE = "verify.json"
Batch = dict[str, np.ndarray]


class Differences:
    """Largest difference of each case, absolute and relative to the case's largest value."""

    def __init__(self, peer: str, pad: int = Special.PAD):
        """``peer`` names what JAX is compared with; ``pad`` is the word piece of padding."""
        self.peer, self.pad = peer, pad
        self.cases: dict[str, dict[str, float]] = {}

    def add(self, name: str, actual: np.ndarray, expected: np.ndarray) -> None:
        """Adds a case."""
        assert actual.shape == expected.shape, (name, actual.shape, expected.shape)
        difference = float(np.abs(actual.astype(np.float64) - expected).max())
        largest = max(float(np.abs(expected).max()), 1e-30)
        self.cases[name] = {"max_abs": difference, "max_rel": difference / largest}

    def add_outputs(
        self,
        name: str,
        actual: Mapping[str, np.ndarray],
        expected: Mapping[str, np.ndarray],
        batch: Batch,
    ) -> None:
        """Adds every output of a model for a batch, without the states of padding."""
        assert set(actual) == set(expected), (name, sorted(actual), sorted(expected))
        for output, value in expected.items():
            valid = batch["text"][:, 1:] != self.pad if output == "text" else ...
            self.add(f"{name}/{output}", actual[output][valid], value[valid])

    def summary(self) -> dict[str, Any]:
        """Returns the content of ``verify.json``."""
        worst = {
            kind: float(np.max([case[kind] for case in self.cases.values()]))
            for kind in ("max_abs", "max_rel")
        }
        return worst | {"limit": LIMIT, "peer": self.peer, "cases": self.cases}

    def write(self, folder: pathlib.Path) -> bool:
        """Writes ``verify.json``; returns whether all differences are within the limit.

        A difference that is not a number is beyond it.
        """
        summary = self.summary()
        (folder / VERIFY_FILE).write_text(json.dumps(summary, indent=1) + "\n")
        return summary["max_abs"] <= LIMIT


def compare(
    run: Run,
    peer: str,
    forward: Callable[[str, Batch], Mapping[str, np.ndarray]],
    batches: Mapping[str, Batch] | None = None,
    *,
    means: bool = False,
) -> Differences:
    """Compares the outputs of ``forward`` with JAX's, batch by batch.

    Args:
      run: that was exported.
      peer: names the other program.
      forward: from the batch's name and content to outputs, named as by ``jax_outputs``.
      batches: to compare on; default: all of ``random_batches``.
      means: whether ``forward`` also returns the mean states of ``mean_states``.
    """
    differences = Differences(peer, run.model.pad)
    params = as_tree(run.params)
    cases = batches or random_batches(run.model)
    for name, batch in counted(cases.items(), "comparing", "batches", len(cases)):
        expected = jax_outputs(run.model, params, batch)
        if means:
            expected |= mean_states(expected, batch, run.model.pad)
        differences.add_outputs(name, forward(name, batch), expected, batch)
    return differences


def random_images(side: int, seed: int = 0) -> np.ndarray:
    """Returns random pixels [B, side, side, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (BATCH, side, side, 3), np.uint8)


def random_batches(config: ModelConfig, seed: int = 0) -> dict[str, Batch]:
    """Returns a batch per stream, and one of unmasked images; texts have different lengths."""
    rng = np.random.default_rng(seed)
    image = {"image": random_images(config.image_size, seed)}
    num_masked = max(1, round(MASKED_FRACTION * config.patches))
    masked = np.stack([rng.permutation(config.patches)[:num_masked] for _ in range(BATCH)])
    length = min(config.text_positions, 59)
    text = rng.integers(Special.MASK, config.vocabulary, (BATCH, length))
    text[:, 0] = Special.CLS
    ends = np.linspace(max(3, length // 3), length, BATCH).astype(int)
    for row, end in zip(text, ends, strict=True):
        row[end - 1], row[end:] = Special.SEP, config.pad
    # Positions between CLS and SEP of the shortest text, so that they are valid in every text.
    shortest = ends.min()
    positions = np.stack(
        [1 + rng.permutation(shortest - 2)[: max(1, shortest // 3)] for _ in range(BATCH)]
    )
    words = {"text": text, "text_masked": positions}
    return {
        "image": image,
        "image_masked": image | {"masked_patches": masked},
        "text": words,
        "pair": image | {"masked_patches": masked} | words,
    }


def jax_outputs(config: ModelConfig, params: Any, batch: Batch) -> dict[str, np.ndarray]:
    """Returns JAX's CLS states, states and logits by modality, named as in vlbeit_torch.py."""
    network = VLBEiT(dataclasses.replace(config, matmul="float32"))
    inputs = Inputs(**{name: jnp.asarray(value) for name, value in batch.items()})

    def forward(params: Any) -> tuple[Any, Any]:
        variables = {"params": params}
        states = network.apply(variables, inputs, method="encode")
        return states, network.apply(variables, inputs, method="logits")

    with jax.default_matmul_precision("highest"):
        tokens, logits = jax.jit(forward)(params)
    outputs = {}
    for modality, _ in tokens.layout:
        is_image = modality is Modality.VISION
        name = "image" if is_image else "text"
        states = np.asarray(tokens.segment(modality))
        outputs |= {f"{name}_cls": states[:, 0], name: states[:, 1:]}
        if modality in logits:
            classes = config.codes if is_image else config.vocabulary
            outputs[f"{name}_logits"] = np.asarray(logits[modality])[..., :classes]
    return outputs


def mean_states(outputs: Mapping[str, np.ndarray], batch: Batch, pad: int) -> dict[str, np.ndarray]:
    """Returns mean states [B, D] of patches, and of word pieces without padding, in float64."""
    means = {}
    if "image" in outputs:
        means["image_mean"] = outputs["image"].mean(axis=1, dtype=np.float64)
    if "text" in outputs:
        valid = (batch["text"][:, 1:] != pad)[..., None]
        means["text_mean"] = (outputs["text"] * valid).sum(axis=1) / valid.sum(axis=1)
    return means


def split_states(states: Any, batch: Iterable[str], patches: int) -> dict[str, Any]:
    """Splits states [B, L, D] of another program, images first, into the outputs' names."""
    first_text = patches + 1 if "image" in batch else 0
    outputs = {}
    if "image" in batch:
        outputs |= {"image_cls": states[:, 0], "image": states[:, 1:first_text]}
    if "text" in batch:
        outputs |= {"text_cls": states[:, first_text], "text": states[:, first_text + 1 :]}
    return outputs


def hidden_patches(batch: Batch, patches: int) -> np.ndarray:
    """Returns Bool[B, N], True where a patch is masked."""
    hidden = np.zeros((len(batch["image"]), patches), bool)
    if "masked_patches" in batch:
        np.put_along_axis(hidden, batch["masked_patches"], True, axis=1)
    return hidden


def tokenizer_outputs(visual: Visual, image: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what JAX chooses visual tokens by: VQ-KD's features, or DALL-E's logits."""
    if isinstance(visual.config, DalleConfig):
        network, method, name = DalleEncoder(visual.config, "float32"), "__call__", "logits"
    else:
        config = dataclasses.replace(visual.config, matmul="float32")
        network, method, name = make_tokenizer(config), "features", "features"
    params = as_tree({key: value for key, value in visual.params.items() if key != CODEBOOK})

    def forward(params: Any) -> Any:
        return network.apply({"params": params}, jnp.asarray(image), method=method)

    with jax.default_matmul_precision("highest"):
        return {name: np.asarray(jax.jit(forward)(params))}


@contextlib.contextmanager
def importable(folder: pathlib.Path) -> Iterator[None]:
    """Lets a file of an export import the others by their names, and no file of another export."""
    names = [path.stem for path in folder.glob("*.py")]
    outside = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(outside)


def module_of(path: pathlib.Path) -> ModuleType:
    """Imports a Python file as a module of its own.

    Each path has its own entry in ``sys.modules``, where ``torch.compile`` looks up the globals of
    functions.
    """
    name = f"{path.stem}_{zlib.crc32(str(path.resolve()).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def require_agreement(differences: Differences, out: pathlib.Path) -> None:
    """Prints and writes what both sides differ by; ends the command if it is too much."""
    is_within_limit = differences.write(out)
    print(f"against {differences.peer}")
    for name, case in differences.cases.items():
        print(f"{name:36s} max |difference| {case['max_abs']:.2e}, relative {case['max_rel']:.2e}")
    if not is_within_limit:
        limit = differences.summary()["limit"]
        raise SystemExit(f"error: differences above {limit:g}; see {out / 'verify.json'}")
