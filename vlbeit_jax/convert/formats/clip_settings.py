"""What no tensor of a CLIP tells: the activation, the heads and the normalisation of pixels.

A configuration beside the file tells them, as open_clip and transformers write it. The command's
flags tell them where there is none.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.teacher import GELU, PIXELS, QUICK_GELU

OPEN_CLIP, TRANSFORMERS = "open_clip_config.json", "config.json"
CLIP_MODELS = ("clip", "clip_vision_model")  # ``model_type`` in transformers.


class Stated(NamedTuple):
    """What one configuration says; None: nothing."""

    file: str
    activation: str
    heads: int | None
    pixels: tuple[Any, Any] | None


class Found(NamedTuple):
    """What the configuration and the flags say together.

    Attributes:
      activation: of the network.
      options: the flags, with the heads that the configuration tells.
      notes: for the import's report.
    """

    activation: str
    options: ImportOptions
    notes: tuple[str, ...]


def find_settings(path: pathlib.Path, options: ImportOptions) -> Found:
    """Reads the configurations beside a file.

    Raises:
      UsageError: neither a configuration nor a flag tells the activation, they contradict each
        other, or the network takes other pixels than CLIP's.
    """
    all_stated = [each for name in (OPEN_CLIP, TRANSFORMERS) if (each := _read(path.parent / name))]
    for stated in all_stated:
        _check_pixels(stated)
        options = _agreed(options, "activation", stated)
        options = _agreed(options, "heads", stated)
    if options.activation is None:
        raise UsageError(
            f"{path}: the tensors do not tell whether the network was trained with GELU or with "
            f"QuickGELU, and neither {OPEN_CLIP} nor a {TRANSFORMERS} of CLIP lies beside the "
            f"file. Give --activation={QUICK_GELU} for a network of OpenAI, or of open_clip if its "
            f"model's name ends in -quickgelu; give --activation={GELU} for any other of open_clip"
        )
    source = all_stated[0].file if all_stated else "--activation"
    note = f"the activation is {options.activation}, as {source} says"
    return Found(options.activation, options, (note,))


def _agreed(options: ImportOptions, name: str, stated: Stated) -> ImportOptions:
    """Returns the options with what a configuration says, unless they say something else."""
    before, value = getattr(options, name), getattr(stated, name)
    if value is None or before == value:
        return options
    if before is not None:
        raise UsageError(
            f"{stated.file} beside the file says {name}={value}, but --{name} or another "
            f"configuration says {before}. Leave --{name} out, or take {stated.file} away if it is "
            "not of this file"
        )
    return dataclasses.replace(options, **{name: value})


def _check_pixels(stated: Stated) -> None:
    if stated.pixels is None:
        return
    for said, usual in zip(stated.pixels, PIXELS["clip"], strict=True):
        if np.shape(said) != (3,) or not np.allclose(said, usual, atol=1e-4):
            raise UsageError(
                f"{stated.file} says that the network takes pixels with mean {stated.pixels[0]} "
                f"and deviation {stated.pixels[1]}. A teacher here takes CLIP's, "
                f"{PIXELS['clip'][0]} and {PIXELS['clip'][1]}; give a file that was trained with "
                "them"
            )


def _read(path: pathlib.Path) -> Stated | None:
    """Returns what a configuration says; None if there is none, or it is of another network."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} lies beside the file and cannot be read ({error}). Mend it, or take it away"
        ) from error
    if not isinstance(content, dict):
        return None
    if content.get("model_type") in CLIP_MODELS:
        return _of_transformers(path.name, content)
    return _of_open_clip(path.name, content)


def _of_transformers(file: str, content: Mapping[str, Any]) -> Stated:
    """From a ``CLIPConfig`` or ``CLIPVisionConfig``; both leave out what has its default."""
    vision = content.get("vision_config") or content
    activation = vision.get("hidden_act", QUICK_GELU)
    if activation not in (GELU, QUICK_GELU):
        raise UsageError(
            f"{file} beside the file says hidden_act={activation}; supported are {GELU} and "
            f"{QUICK_GELU}"
        )
    return Stated(file, activation, vision.get("num_attention_heads"), None)


def _of_open_clip(file: str, content: Mapping[str, Any]) -> Stated | None:
    """From a model's configuration, alone or as open_clip puts it on a hub."""
    model = content.get("model_cfg", content)
    vision = model.get("vision_cfg") if isinstance(model, dict) else None
    if not isinstance(vision, dict):
        return None
    # Both defaults are open_clip's.
    activation = QUICK_GELU if model.get("quick_gelu", False) else GELU
    heads = vision["width"] // vision.get("head_width", 64) if "width" in vision else None
    view = content.get("preprocess_cfg") or {}
    pixels = (view["mean"], view["std"]) if {"mean", "std"} <= view.keys() else None
    return Stated(file, activation, heads, pixels)
