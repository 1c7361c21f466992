"""The whole model and its visual tokenizer for PyTorch, with the file that defines them.

That file is ``convert/standalone/vlbeit_torch.py``.
"""

import dataclasses
import json
import pathlib
import shutil
from types import ModuleType
from typing import Any

import numpy as np

from vlbeit_jax.config.networks import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.config.parse import to_dict
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.card import of_run, write_card
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.formats.base import Export
from vlbeit_jax.convert.formats.torch_tables import dalle_table, model_table, vqkd_table
from vlbeit_jax.convert.rules import Arrays, export
from vlbeit_jax.convert.source import Run
from vlbeit_jax.models.dalle import DalleConfig
from vlbeit_jax.models.embed import TEXT_NORM_EPS
from vlbeit_jax.models.layers import LAYER_NORM_EPS
from vlbeit_jax.places import copy_tree
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER
from vlbeit_jax.tasks.open_vqkd import make_tokenizer
from vlbeit_jax.types import Special
from vlbeit_jax.version import __version__

STANDALONE = pathlib.Path(__file__).parent.parent / "standalone"
WEIGHTS_FILE = "model.safetensors"
FILES = ("vlbeit_torch.py", "evaluate.py")
SPECIALS = {special.name: int(special) for special in Special}


CODE = """
import sys

sys.path.insert(0, ".")  # The folder with this file.
from vlbeit_torch import load, normalise

model, visual_tokenizer = load(".")
found = model(image=normalise(pixels), text=pieces)  # Also an image or a text alone.
found.image_mean, found.text_mean  # One vector per image and per text.
"""


def write(run: Run, folder: pathlib.Path) -> None:
    """Writes weights, configuration, text tokenizer, ``convert/standalone`` and a model card."""
    model = export(model_table(run.model), run.params)
    tensors = {f"model.{name}": value for name, value in model.items()}
    if run.visual is not None:
        config = run.visual.config
        table = dalle_table(config) if isinstance(config, DalleConfig) else vqkd_table(config)
        visual = export(table, run.visual.params)
        tensors |= {f"visual_tokenizer.{name}": value for name, value in visual.items()}
    write_safetensors(folder / WEIGHTS_FILE, tensors, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(run), indent=1) + "\n")
    for name in FILES:
        shutil.copy(STANDALONE / name, folder)
    copy_text_tokenizer(run.text_tokenizer, folder)
    write_card(of_run(run), CODE, folder)


def copy_text_tokenizer(place: pathlib.Path | None, folder: pathlib.Path) -> None:
    """Copies a text tokenizer, if there is one, into an export."""
    if place is not None:
        copy_tree(place, folder / TEXT_TOKENIZER)


def as_module(run: Run) -> tuple[ModuleType, Any]:
    """Returns vlbeit_torch.py, and the run's model as a PyTorch module."""
    module = verify.module_of(STANDALONE / "vlbeit_torch.py")
    model = module.VLBEiT(model_config(run.model))
    load_arrays(model, export(model_table(run.model), run.params))
    return module, model


def load_arrays(model: Any, arrays: Arrays) -> None:
    """Loads arrays into a PyTorch module, name by name, and sets evaluation mode."""
    import torch

    tensors = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    model.load_state_dict(tensors, strict=True)
    model.eval()


def config_of(run: Run) -> dict[str, Any]:
    """Returns the content of config.json."""
    # An imported model has the word pieces of another program, and their numbers are unknown here.
    specials = None if run.text_tokenizer is None else SPECIALS
    return {
        "format": 1,
        "written_by": f"vlbeit_jax {__version__}",
        "step": run.step,
        "model": model_config(run.model),
        "visual_tokenizer": None if run.visual is None else visual_config(run.visual.config),
        "specials": specials,
    }


def model_config(config: ModelConfig) -> dict[str, Any]:
    """Returns the argument of ``VLBEiT`` in vlbeit_torch.py."""
    return to_dict(config) | {"layer_norm_eps": config.norm_eps, "text_norm_eps": TEXT_NORM_EPS}


def visual_config(config: VisualTokenizerConfig | DalleConfig) -> dict[str, Any]:
    """Returns the argument of the visual tokenizer in vlbeit_torch.py."""
    if isinstance(config, DalleConfig):
        return {"kind": "dalle"} | dataclasses.asdict(config)
    added = {
        "target_width": make_tokenizer(config).target_width,
        "layer_norm_eps": LAYER_NORM_EPS,
    }
    return {"kind": "vqkd"} | to_dict(config) | added


def check(run: Run, folder: pathlib.Path) -> verify.Differences:
    """Compares the folder's module with JAX: the model, and what visual tokens are chosen by."""
    import torch

    module = verify.module_of(folder / "vlbeit_torch.py")
    model, visual_tokenizer = module.load(folder)

    def pixels_of(image: np.ndarray) -> torch.Tensor:
        return module.normalise(torch.from_numpy(image).permute(0, 3, 1, 2))

    @torch.inference_mode()
    def forward(name: str, batch: verify.Batch) -> dict[str, np.ndarray]:
        inputs = {
            key: pixels_of(value) if key == "image" else torch.from_numpy(value).long()
            for key, value in batch.items()
        }
        return {key: value.numpy() for key, value in model(**inputs).items()}

    peer = f"vlbeit_torch.py with PyTorch {torch.__version__}"
    differences = verify.compare(run, peer, forward, means=True)
    if run.visual is None:
        return differences
    image = verify.random_images(run.visual.config.image_size)
    for name, expected in verify.tokenizer_outputs(run.visual, image).items():
        with torch.inference_mode():
            actual = getattr(visual_tokenizer, name)(pixels_of(image)).numpy()
        # VQ-KD's features are unit vectors. Logits have no scale, so the largest is the unit.
        unit = np.abs(expected).max() if name == "logits" else np.float32(1)
        differences.add(f"visual_tokenizer/{name}", actual / unit, expected / unit)
    return differences


EXPORT = Export(
    takes="pretraining runs",
    exact="all of it: images, texts, pairs, heads, visual tokenizer, BEiT-3's form",
    needs="torch and safetensors to load it, nothing else",
    drops="nothing",
    peers=("torch",),
    require=None,
    write=write,
    check=check,
    flags=("verify", "data", "draws"),
)
