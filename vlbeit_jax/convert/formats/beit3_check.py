"""Runs exports under BEiT-3's names in torchscale and compares them with JAX."""

import functools
import importlib.util
import json
import pathlib
import sys
import types
from typing import Any

import numpy as np

from vlbeit_jax.convert import verify
from vlbeit_jax.convert.source import Run

WEIGHTS_FILE, FUSION_FILE = "beit3.safetensors", "beit3_fusion.safetensors"


def check(run: Run, folder: pathlib.Path) -> verify.Differences:
    """Compares torchscale's BEiT3 with JAX: one state dict for images and texts, one for pairs."""
    import torch
    from torch.nn import functional

    config = run.model
    open_file = functools.cache(functools.partial(_open_torchscale, folder))

    @torch.no_grad()
    def forward(name: str, batch: verify.Batch) -> dict[str, np.ndarray]:
        is_fusion = name == "pair" and not config.decoupled
        model, heads = open_file(FUSION_FILE if is_fusion else WEIGHTS_FILE)
        inputs: dict[str, Any] = {}
        if "image" in batch:
            pixels = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).float() / 127.5 - 1
            inputs["visual_tokens"] = pixels
        if "masked_patches" in batch:
            hidden = verify.hidden_patches(batch, config.patches).astype(np.float32)
            inputs["vision_masked_position"] = torch.from_numpy(hidden)
        if "text" in batch:
            text = torch.from_numpy(batch["text"])
            inputs |= {"textual_tokens": text, "text_padding_position": text == config.pad}
        states = model(**inputs)["encoder_out"]
        outputs = verify.split_states(states, batch, config.patches)
        # Masked patches are counted from the first patch, masked word pieces from the text's CLS.
        sequences = {}
        if "image" in batch:
            sequences["image"] = outputs["image"]
        if "text" in batch:
            sequences["text"] = torch.cat([outputs["text_cls"][:, None], outputs["text"]], dim=1)
        for modality, masked, head in (
            ("image", "masked_patches", "mim_head"),
            ("text", "text_masked", "mlm_head"),
        ):
            if masked in batch:
                positions = torch.from_numpy(batch[masked])[..., None]
                picked = sequences[modality].gather(1, positions.expand(-1, -1, config.width))
                weight, bias = heads[f"{head}.weight"], heads[f"{head}.bias"]
                outputs[f"{modality}_logits"] = functional.linear(picked, weight, bias)
        return {output: value.numpy() for output, value in outputs.items()}

    return verify.compare(run, "torchscale's BEiT3", forward)


def _open_torchscale(folder: pathlib.Path, file: str) -> tuple[Any, dict[str, Any]]:
    """Returns the model with its weights, and the heads, which torchscale leaves to its users."""
    from safetensors.torch import load_file

    if "timm" not in sys.modules and importlib.util.find_spec("timm") is None:
        # torchscale imports one function of timm, for drop path, which is off here.
        layers = types.ModuleType("timm.models.layers")
        layers.drop_path = lambda x, *_: x  # pyright: ignore[reportAttributeAccessIssue]
        sys.modules |= {
            "timm": types.ModuleType("timm"),
            "timm.models": types.ModuleType("timm.models"),
            "timm.models.layers": layers,
        }
    from torchscale.architecture.config import EncoderConfig  # pyright: ignore[reportMissingImports]
    from torchscale.model.BEiT3 import BEiT3  # pyright: ignore[reportMissingImports]

    arguments = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / file)
    heads = {name: weights.pop(name) for name in list(weights) if not name.startswith("beit3.")}
    model = BEiT3(EncoderConfig(**arguments))
    model.load_state_dict(
        {name.removeprefix("beit3."): value for name, value in weights.items()}, strict=True
    )
    return model.eval(), heads
