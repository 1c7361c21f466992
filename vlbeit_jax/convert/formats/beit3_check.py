"""Exports under BEiT-3's names, run in torchscale."""

import importlib.util
import json
import pathlib
import sys
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.convert import verify
from vlbeit_jax.convert.formats.beit3 import FUSION_FILE, WEIGHTS_FILE
from vlbeit_jax.convert.source import Run


def check(run: Run, folder: pathlib.Path) -> verify.Differences:
    """Torchscale's BEiT3 against JAX: one state dict for images and texts, the other one for pairs."""
    import torch
    from torch.nn import functional

    found = verify.Differences("torchscale's BEiT3", run.model.pad)
    config, params = run.model, verify.parameters(run.params)
    arguments = json.loads((folder / "config.json").read_text())
    opened = {}
    for name, batch in verify.batches(config).items():
        file = folder / (FUSION_FILE if name == "pair" and not config.decoupled else WEIGHTS_FILE)
        if file not in opened:
            opened[file] = _torchscale(arguments, file)
        model, heads = opened[file]
        inputs: dict[str, Any] = {}
        if "image" in batch:
            inputs["visual_tokens"] = (
                torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).float() / 127.5 - 1
            )
        if "masked_patches" in batch:
            hidden = np.zeros((len(batch["image"]), config.patches), np.float32)
            np.put_along_axis(hidden, batch["masked_patches"], 1, axis=1)
            inputs["vision_masked_position"] = torch.from_numpy(hidden)
        if "text" in batch:
            text = torch.from_numpy(batch["text"])
            inputs |= {"textual_tokens": text, "text_padding_position": text == config.pad}
        with torch.no_grad():
            states = model(**inputs)["encoder_out"]
            patches_here = config.patches + 1 if "image" in batch else 0
            parts = {}
            if "image" in batch:
                parts |= {"image_cls": states[:, 0], "image": states[:, 1:patches_here]}
            if "text" in batch:
                parts |= {
                    "text_cls": states[:, patches_here],
                    "text": states[:, patches_here + 1 :],
                }
            for modality, head, first in (
                ("image", "mim_head", 1),
                ("text", "mlm_head", patches_here),
            ):
                if f"{modality}_masked" in batch:
                    places = torch.from_numpy(batch[f"{modality}_masked"])[..., None] + first
                    picked = states.gather(1, places.expand(-1, -1, states.shape[-1]))
                    parts[f"{modality}_logits"] = functional.linear(
                        picked, heads[f"{head}.weight"], heads[f"{head}.bias"]
                    )
        found.add_output(
            name,
            {part: value.numpy() for part, value in parts.items()},
            verify.ours(config, params, batch),
            batch,
        )
    return found


def _torchscale(arguments: Mapping[str, Any], file: pathlib.Path) -> tuple[Any, dict[str, Any]]:
    """The model with its weights, and the heads that torchscale leaves to its users."""
    from safetensors.torch import load_file

    if "timm" not in sys.modules and importlib.util.find_spec("timm") is None:
        # Torchscale wants one function of it, for drop path, which is off here.
        layers = types.ModuleType("timm.models.layers")
        layers.drop_path = lambda x, *_: x  # pyright: ignore[reportAttributeAccessIssue]
        sys.modules |= {
            "timm": types.ModuleType("timm"),
            "timm.models": types.ModuleType("timm.models"),
            "timm.models.layers": layers,
        }
    from torchscale.architecture.config import EncoderConfig  # pyright: ignore[reportMissingImports]
    from torchscale.model.BEiT3 import BEiT3  # pyright: ignore[reportMissingImports]

    weights = load_file(file)
    heads = {name: weights.pop(name) for name in list(weights) if not name.startswith("beit3.")}
    model = BEiT3(EncoderConfig(**arguments))
    model.load_state_dict(
        {name.removeprefix("beit3."): value for name, value in weights.items()}, strict=True
    )
    return model.eval(), heads
