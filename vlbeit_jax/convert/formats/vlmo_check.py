"""Compares exports under VLMo's names with VLMo's network in NumPy."""

import pathlib

import numpy as np

from vlbeit_jax.convert import reference, verify
from vlbeit_jax.convert.read_tensors import read_tensors
from vlbeit_jax.convert.source import Run

WEIGHTS_FILE = "vlmo.safetensors"


def check(run: Run, folder: pathlib.Path) -> verify.Differences:
    """Compares JAX with ``convert.reference``, VLMo's network in float64."""
    config = run.model
    weights = {
        name.removeprefix("transformer."): value.astype(np.float64)
        for name, value in read_tensors(folder / WEIGHTS_FILE).tensors.items()
    }
    net = reference.Net(
        depth=config.depth,
        heads=config.heads,
        grid=config.grid,
        patch=config.patch_size,
        fused=config.fused_layers,
        text_positions=config.text_positions,
        relative=True,
    )

    def forward(name: str, batch: verify.Batch) -> dict[str, np.ndarray]:
        inputs = {}
        if "image" in batch:
            inputs["image"] = batch["image"] / 127.5 - 1
        if "text" in batch:
            inputs |= {"ids": batch["text"], "valid": batch["text"] != config.pad}
        return verify.split_states(reference.states(weights, net, **inputs), batch, config.patches)

    # VLMo has no mask token and no heads, so batches come without masks.
    batches = {
        name: {key: value for key, value in batch.items() if key in ("image", "text")}
        for name, batch in verify.random_batches(config).items()
        if name != "image_masked"
    }
    return verify.compare(run, "VLMo's network in float64 NumPy", forward, batches)
